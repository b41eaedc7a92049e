"""How each student is getting on, counted."""
