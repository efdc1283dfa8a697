"""How content comes into the cache, who may have it, and how it is found again. No use case of its own."""
