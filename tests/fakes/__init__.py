"""Small real implementations of the ports, for tests. They pass the same contracts as the adapters."""
