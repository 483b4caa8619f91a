"""The checks by theme. Each is a function of the evidence that yields what is wrong."""
