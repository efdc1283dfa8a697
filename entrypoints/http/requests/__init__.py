"""Reads what a client's request says."""
