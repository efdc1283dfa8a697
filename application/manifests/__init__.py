"""Pulls of manifests: by tag or digest, from the cache or from the upstream."""
