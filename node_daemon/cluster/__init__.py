"""The Kubernetes API: pods, the Node, Events."""
