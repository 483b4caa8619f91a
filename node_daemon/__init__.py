"""The node daemon: advertises slices to the kubelet and gives each container exactly its own.

``docs/node-daemon.md`` describes each folder and the allowed imports.
"""
