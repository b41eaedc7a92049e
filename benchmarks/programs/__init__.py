"""One file for each system that is measured: the application, made as its own documentation says.

Each is imported in that system's own environment only, and ends with `SENDER = …` (`program.py`).
"""
