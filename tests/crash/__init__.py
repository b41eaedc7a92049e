"""Faults on real processes and servers, and a checker that looks at what came of the work afterwards.

`history.py` is what was seen from outside; `checker.py` judges it; `systems.py` and `stack.py` start what is
judged; `faults/` holds the faults, each a short story; `scenario.py` runs one of them.
"""
