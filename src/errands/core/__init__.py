"""The rules of background work, in pure Python: no input, no output, no clock of its own."""
