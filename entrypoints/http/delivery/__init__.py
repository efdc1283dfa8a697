"""Sends response bodies. The kernel copies content that is in a file."""
