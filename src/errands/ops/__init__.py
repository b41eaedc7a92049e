"""What people see of runs and do with them, the same for every door: views, actions, health, metrics."""
