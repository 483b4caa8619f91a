"""The pages that the kubelet and Prometheus read."""

import asyncio
import socket

import aiohttp
import pytest
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter

from gpu_fraction.serving.background import background
from gpu_fraction.serving.probes import Check, serve_probes


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def read(
    path: str, *, ready: Check = lambda: None, live: Check = lambda: None
) -> tuple[int, str, str]:
    """Status, text and content type of one page."""
    registry, port = CollectorRegistry(), free_port()
    Counter("things", "Things.", registry=registry).inc()
    async with (
        serve_probes("127.0.0.1", port, registry, ready=ready, live=live),
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}{path}") as answer,
    ):
        return answer.status, await answer.text(), answer.headers["Content-Type"]


async def slow() -> str:
    """A check that waits."""
    await asyncio.sleep(0)
    return "the socket does not answer"


async def test_a_process_that_is_fine_says_so() -> None:
    """Also where a check returns an empty text."""
    assert (await read("/livez"))[:2] == (200, "ok\n")
    assert (await read("/readyz", ready=lambda: ""))[:2] == (200, "ok\n")


async def test_what_is_wrong_is_the_answer() -> None:
    """Each page has a check of its own, which may wait."""
    lost = "pods are not loaded"
    assert (await read("/readyz", ready=lambda: lost))[:2] == (503, "pods are not loaded\n")
    assert (await read("/livez", ready=lambda: lost))[:2] == (200, "ok\n")
    assert (await read("/livez", live=slow))[:2] == (503, "the socket does not answer\n")


async def test_metrics_are_those_of_the_registry() -> None:
    """In the text format of Prometheus."""
    status, body, kind = await read("/metrics", ready=lambda: "not ready")
    assert (status, kind) == (200, CONTENT_TYPE_LATEST)
    assert "things_total 1.0" in body


async def test_work_in_the_background_ends_with_the_block() -> None:
    """It has begun by the first pause of the block."""
    seen: list[str] = []

    async def work() -> None:
        seen.append("begun")
        try:
            await asyncio.Event().wait()
        finally:
            seen.append("ended")

    async with background(work):
        await asyncio.sleep(0)
        assert seen == ["begun"]
    assert seen == ["begun", "ended"]


async def test_failed_work_ends_the_block() -> None:
    """A daemon does not serve on without what it needs."""

    async def work() -> None:
        raise OSError("no")

    with pytest.raises(ExceptionGroup) as failed:
        async with background(work):
            await asyncio.Event().wait()
    assert failed.group_contains(OSError, match="no")
