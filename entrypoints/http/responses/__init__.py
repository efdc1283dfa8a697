"""Builds responses: errors, cached responses, and the framing of byte ranges."""
