"""Daemons as processes: ready once they have loaded the cluster, gone at SIGTERM."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import aiohttp
import pytest
from ruamel.yaml import YAML

from gpu_fraction.sandbox.apiserver import ApiServer
from gpu_fraction.sandbox.apiserver.kinds import from_crd
from tests.support.tls import make
from tests.unit.cli.test_server_version import kubeconfig

CRD = Path(__file__).parents[3] / "deploy" / "crd" / "gpuquotas.yaml"
FILES = "--tls-cert={tls.cert} --tls-key={tls.key} --client-ca={tls.cert}"


async def port_of(process: asyncio.subprocess.Process) -> int:
    """The port, from the log line that names it."""
    assert process.stdout is not None
    async for line in process.stdout:
        if b".listening" in line:
            return int(json.loads(line)["port"])
    raise AssertionError("it ended before it listened")


@pytest.mark.parametrize(
    ("scheme", "words"),
    [
        ("http", "controller"),
        ("http", "controller --manage-certificates=false"),
        ("https", f"scheduler-extender {FILES} --client-names=scheduler"),
    ],
    ids=["controller", "controller with cert-manager", "scheduler-extender"],
)
async def test_it_becomes_ready_and_ends(scheme: str, words: str, tmp_path: Path) -> None:
    """Its probes and metrics answer; the exit code of SIGTERM is 0."""
    server = ApiServer()
    server.register(from_crd(YAML(typ="safe").load(CRD.read_text())))
    async with server.serve():
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gpu_fraction.cli.main"),
            *words.format(tls=make(tmp_path)).split(),
            *("--host=127.0.0.1", "--port=0"),
            f"--kubeconfig={kubeconfig(tmp_path, server.url)}",
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        try:
            async with asyncio.timeout(40), aiohttp.ClientSession() as session:
                url = f"{scheme}://127.0.0.1:{await port_of(process)}"
                ready = 0
                while ready != 200:
                    async with session.get(f"{url}/readyz", ssl=False) as answer:
                        ready = answer.status
                async with session.get(f"{url}/livez", ssl=False) as answer:
                    assert (answer.status, await answer.text()) == (200, "ok\n")
                async with session.get(f"{url}/metrics", ssl=False) as answer:
                    assert "gpu_fraction_" in await answer.text()
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(40):
                await process.communicate()
            assert process.returncode == 0
        finally:
            if process.returncode is None:
                process.kill()
                await process.communicate()
