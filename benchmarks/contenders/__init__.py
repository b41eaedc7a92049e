"""One file for each system that is measured. Each makes its application as that system's documentation does."""
