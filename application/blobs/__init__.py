"""Pulls of blobs: from the cache, from a running download, or straight from the upstream."""
