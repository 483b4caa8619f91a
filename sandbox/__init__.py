"""A cluster in one process, for the demonstration and for fault injection."""
