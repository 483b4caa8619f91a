"""Ports for servers that do not choose their own."""

import contextlib
import socket


def free_port(address: str) -> int:
    """A port that nobody listens on at this address now."""
    with socket.socket() as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


def listens(address: str, port: int) -> bool:
    """Whether somebody accepts connections there."""
    with contextlib.suppress(OSError), socket.create_connection((address, port), timeout=2):
        return True
    return False
