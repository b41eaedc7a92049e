"""What the kits cost."""
