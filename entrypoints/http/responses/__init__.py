"""Builds the responses that are not streamed."""
