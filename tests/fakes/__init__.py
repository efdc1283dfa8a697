"""In-memory implementations of the ports for tests. They pass the same contract tests as the adapters."""
