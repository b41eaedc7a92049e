"""Several courses in one order."""
