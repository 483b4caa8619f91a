"""The daemon's state: allocations, pods, tokens, the usage of each card."""
