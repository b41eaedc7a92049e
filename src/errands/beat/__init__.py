"""What runs by itself, under one elected leader. Any number of beats may run; one of them works."""
