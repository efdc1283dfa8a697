"""The operator's commands, and the periodic work of the service."""
