"""Parses the parts of a request into values."""
