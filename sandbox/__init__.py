"""A cluster in one process, for the demo and for tests that need faults."""
