"""Asks a socket of the daemon's own, as the kubelet would."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import grpc

PROBE_S: Final = 2.0
"""A socket counts as dead after this time. Chosen: above any pause seen."""


async def answers(socket: Path, ask: Callable[[grpc.aio.Channel], Awaitable[object]]) -> str:
    """Why nobody answers there, empty where somebody does; a dead listener is seen."""
    try:
        async with (
            asyncio.timeout(PROBE_S),
            grpc.aio.insecure_channel(f"unix:{socket}") as channel,
        ):
            await ask(channel)
    except (TimeoutError, grpc.aio.AioRpcError) as e:
        return f"{socket} does not answer: {type(e).__name__}"
    return ""
