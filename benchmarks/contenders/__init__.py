"""One file for each system that is measured: how it is set up, and where its messages and results are.

Its application is the file of the same name in `programs/`, which is imported in its own environment only.
"""
