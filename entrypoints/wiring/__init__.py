"""Builds the parts and connects them. Only this package names adapters."""
