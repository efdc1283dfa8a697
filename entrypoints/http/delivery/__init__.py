"""Sends content to a client, by the kernel where it is a file."""
