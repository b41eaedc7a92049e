"""Running one run: what happens between a message and its acknowledgement."""
