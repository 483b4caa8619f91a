"""Ports for servers that do not choose their own."""

import socket


def free_port(address: str) -> int:
    """A port that nobody listens on at this address now."""
    with socket.socket() as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])
