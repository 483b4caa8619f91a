"""The DRA driver: cards as devices of ResourceSlices, and shares by ResourceClaims."""
