"""What keeps a container within its share of a card: engines, and which one serves which card."""
