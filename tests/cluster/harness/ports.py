"""Ports for servers that do not choose their own."""

import contextlib
import socket

_given: set[tuple[str, int]] = set()


def free_port(address: str) -> int:
    """A port that nobody listens on at this address now, and another one at each call.

    The kernel may offer a port again that nobody has taken yet.
    """
    while True:
        with socket.socket() as probe:
            probe.bind((address, 0))
            port = int(probe.getsockname()[1])
        if (address, port) not in _given:
            _given.add((address, port))
            return port


def listens(address: str, port: int) -> bool:
    """Whether somebody accepts connections there."""
    with contextlib.suppress(OSError), socket.create_connection((address, port), timeout=2):
        return True
    return False
