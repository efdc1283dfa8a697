"""Dependency wiring: builds the objects and connects them. Only this package names adapters."""
