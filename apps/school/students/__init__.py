"""Students as the school sees them: reports on them, lists of them in and out."""
