"""Which API servers are supported, and what becomes of the others."""

import asyncio
import socket

import pytest
from structlog.testing import capture_logs

from gpu_fraction.kube import errors
from gpu_fraction.kube.access import Access
from gpu_fraction.kube.client import connect
from gpu_fraction.kube.server_version import UnsupportedServerError, check, unsupported
from gpu_fraction.sandbox.apiserver import ApiServer
from tests.support.access import fixed


def told(version: str, *, minor: str = "") -> dict[str, str]:
    """What a server of that version says of itself."""
    major, of_version, *_ = version.removeprefix("v").split(".")
    return {"major": major, "minor": minor or of_version, "gitVersion": version}


async def problem_of(version: str, *, minor: str = "") -> str:
    """The problem of a server of that version."""
    async with (
        ApiServer(version=told(version, minor=minor)).serve() as api,
        connect(fixed(Access(server=api.url)), component="test") as client,
    ):
        return await unsupported(client)


@pytest.mark.parametrize(
    ("version", "minor"),
    [
        ("v1.34.0", "34"),
        ("v1.34.4-gke.1", "34"),
        ("v1.35.1-eks-3025e55", "35+"),
        ("v1.37.2", "37"),
    ],
)
async def test_supported_servers_have_no_problem(version: str, minor: str) -> None:
    """Those of managed clusters included, which append to version or minor."""
    assert await problem_of(version, minor=minor) == ""


@pytest.mark.parametrize(
    ("version", "minor"), [("v1.33.9", "33"), ("v1.33.9-eks-3025e55", "33+"), ("v1.4.0", "4")]
)
async def test_an_older_server_is_refused(version: str, minor: str) -> None:
    """With its version, what is supported and what to do."""
    with pytest.raises(UnsupportedServerError) as caught:
        await problem_of(version, minor=minor)
    (said,) = caught.value.errors
    assert said == (
        f"the API server is Kubernetes 1.{minor.rstrip('+')}; gpu-fraction runs on Kubernetes "
        "1.34 to 1.37: upgrade the cluster"
    )


async def test_a_newer_server_is_warned_of() -> None:
    """Nothing is known against it."""
    assert (await problem_of("v1.38.0")).startswith("the API server is Kubernetes 1.38, which was")


async def test_a_server_that_keeps_its_version_to_itself_is_warned_of() -> None:
    """Clusters may take the right to read it away; what else is allowed works all the same."""
    assert "does not report its version" in await problem_of("v1.34.0", minor="unknown")
    assert "was not tested" in await problem_of("v1.34.0", minor="9" * 5000)


async def test_a_server_is_looked_at_as_soon_as_it_answers() -> None:
    """One that cannot be reached is waited for, and only then judged."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    source = fixed(Access(server=f"http://127.0.0.1:{port}"))
    async with connect(source, component="test") as client:
        with pytest.raises(errors.TransientError):
            await client.server_version(timeout_s=0.05)
        with capture_logs() as lines:
            checking = asyncio.create_task(check(client))
            await asyncio.sleep(0)
            api = ApiServer(version=told("v1.38.0"))
            async with api.serve(port=port), asyncio.timeout(20):
                await checking
    assert lines[-1]["log_level"] == "warning"
    assert "1.38" in lines[-1]["why"]


async def test_a_server_that_refuses_at_first_is_looked_at_later() -> None:
    """As one that does not know our account's token yet."""
    api = ApiServer(tokens={}, version=told("v1.33.9"))
    async with (
        api.serve(),
        connect(
            fixed(Access(server=api.url, authorization="Bearer t")), component="test"
        ) as client,
    ):
        with capture_logs() as lines:
            checking = asyncio.create_task(check(client))
            async with asyncio.timeout(20):
                while not lines:
                    await asyncio.sleep(0.01)
                api.tokens = {"t": "webhook"}
                with pytest.raises(UnsupportedServerError):
                    await checking
    assert lines[0]["event"] == "server_version_not_read"
