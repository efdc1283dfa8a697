"""The operator's commands, and the work that the service does by itself at intervals."""
