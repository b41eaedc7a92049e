"""People: registration, sign-in, roles, passwords."""
