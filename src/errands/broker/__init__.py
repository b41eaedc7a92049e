"""Everything that touches Valkey or Redis. All key names are in `keys.py`, all scripts in `lua/`."""
