"""One file for each system that is measured: its application, made as its own documentation says."""
