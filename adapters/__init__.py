"""One outside thing a folder or file."""
