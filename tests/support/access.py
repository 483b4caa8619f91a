"""How tests reach an API server."""

import asyncio
import contextlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path

from gpu_fraction.kube.access import Access, AccessSource
from gpu_fraction.sandbox.apiserver import ApiServer


def fixed(access: Access) -> AccessSource:
    """A source that always finds the same."""

    async def find() -> Access:
        return access

    return AccessSource(find)


def kubeconfig(folder: Path, server: str) -> Path:
    """A file that names the server."""
    named = {"cluster": "sandbox", "user": "sandbox"}
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "sandbox",
        "contexts": [{"name": "sandbox", "context": named}],
        "clusters": [{"name": "sandbox", "cluster": {"server": server}}],
        "users": [{"name": "sandbox", "user": {}}],
    }
    path = folder / "kubeconfig"
    path.write_text(json.dumps(content))
    return path


@contextlib.contextmanager
def serving(api: ApiServer) -> Iterator[str]:
    """The URL of the server.

    It runs on a loop of its own, because commands block this one.
    """
    started = threading.Event()
    loop, stop = asyncio.new_event_loop(), asyncio.Event()

    async def serve() -> None:
        async with api.serve():
            started.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), name="api server")
    thread.start()
    try:
        assert started.wait(10)
        yield api.url
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()
