"""How a manifest is found by tag or digest, cached and delivered."""
