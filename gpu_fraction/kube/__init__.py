"""The adapter to the Kubernetes API: client, reflector, lease, events, errors."""
