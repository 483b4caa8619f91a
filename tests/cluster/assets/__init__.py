"""Fills the cache of Kubernetes binaries that the cluster tests use; standard library only."""
