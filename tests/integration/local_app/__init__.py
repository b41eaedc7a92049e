"""The smallest application that a local run can serve."""
