"""Self-managed certificates: CA, leaf, rotation, injection, reload."""
