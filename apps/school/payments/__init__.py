"""Paying for courses, once."""
