"""Notifications that people read in the school, and on their devices."""
