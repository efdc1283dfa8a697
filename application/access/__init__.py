"""May this caller read this repository, and with whose credentials is the upstream asked."""
