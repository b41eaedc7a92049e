"""Pages on which people watch the work they have asked for."""
