"""The node daemon: advertises slices to the kubelet and gives each container exactly its own.

``docs/node-daemon.md`` says what each folder holds and which may import which.
"""
