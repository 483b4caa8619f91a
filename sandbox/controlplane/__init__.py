"""Stand-ins for kube-scheduler and kube-controller-manager, as far as a demo needs them.

They act on the API server by requests, so that admission sees what they do, and read its storage,
so that they need no caches of their own.
"""
