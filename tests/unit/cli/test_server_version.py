"""Every program that talks to an API server looks at the server's version."""

import asyncio
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from gpu_fraction.cli import cluster
from gpu_fraction.kube.access import Access
from gpu_fraction.kube.server_version import UnsupportedServerError
from gpu_fraction.sandbox.apiserver import ApiServer
from tests.support.access import fixed, kubeconfig, serving
from tests.support.tls import make
from tests.unit.cli.conftest import Command


def of_version(minor: str) -> ApiServer:
    """A server of Kubernetes 1.``minor``."""
    return ApiServer(version={"major": "1", "minor": minor})


@pytest.mark.parametrize(
    "words",
    [
        "webhook --port=0",
        "controller --port=0",
        (
            "scheduler-extender --port=0 --tls-cert={tls.cert} --tls-key={tls.key} "
            "--client-ca={tls.cert} --client-names=scheduler"
        ),
        (
            "node-daemon --port=0 --node-name=n --kubelet-dir={0}/kubelet --state-dir={0}/state "
            "--cdi-dir={0}/cdi --host-cdi-dirs={0}/host"
        ),
        "certs status",
        "certs rotate",
    ],
    ids=lambda words: words.partition(" -")[0],
)
def test_on_an_older_server_the_program_ends(words: str, tmp_path: Path, command: Command) -> None:
    """As after any other fault of the configuration, in one line that says what to do."""
    arguments = words.format(tmp_path, tls=make(tmp_path)).split()
    with serving(of_version("33+")) as url:
        done = command(*arguments, f"--kubeconfig={kubeconfig(tmp_path, url)}")
    assert done.code == 2
    assert done.err == (
        "gpu-fraction: the API server is Kubernetes 1.33; gpu-fraction runs on Kubernetes 1.34 to "
        "1.37: upgrade the cluster\n"
    )


def test_certs_says_where_a_server_was_not_tested(tmp_path: Path, command: Command) -> None:
    """Beside the answer, which scripts may read."""
    with serving(of_version("38")) as url:
        done = command("certs", "status", f"--kubeconfig={kubeconfig(tmp_path, url)}")
    assert done.code == 0
    assert "Kubernetes 1.38" in done.err
    assert "1.38" not in done.out


async def test_what_runs_on_a_supported_server_is_left_alone() -> None:
    """The check is over long before the program is, and a failure of it is its own."""
    async with ApiServer().serve() as api:
        source = fixed(Access(server=api.url))
        work = cluster.connected(source, component="test", registry=CollectorRegistry())

        async def working() -> None:
            async with work as client:
                assert await client.server_version() == (1, 37)
                raise KeyError("mine")

        with pytest.raises(KeyError, match="mine"):
            await working()


async def test_what_runs_on_an_older_server_is_ended() -> None:
    """Wherever it waits."""
    async with of_version("33").serve() as api:
        source = fixed(Access(server=api.url))
        work = cluster.connected(source, component="test", registry=CollectorRegistry())
        with pytest.raises(UnsupportedServerError):
            async with asyncio.timeout(20), work:
                await asyncio.Event().wait()
