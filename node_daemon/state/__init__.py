"""What the daemon knows and keeps: allocations, pods, tokens, what is taken of each card."""
