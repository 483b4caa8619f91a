"""Keeps a container within its share of a card: engines, and the choice between them."""
