"""The admission server: mutate and validate."""
