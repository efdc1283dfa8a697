"""How a blob is delivered: from the cache, from a running download, or straight from the upstream."""
