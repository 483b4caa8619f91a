"""A real Kubernetes on this machine, started and cleaned up by the tests."""
