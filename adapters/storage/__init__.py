"""Content in files, and what is known about it in SQLite."""
