"""What replicas share: content in an object store, and the rest in Redis. Imported only if these are set."""
