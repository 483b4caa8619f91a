"""From a token of the kubelet to a slice that a container starts with."""
