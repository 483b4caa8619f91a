"""``gpu-fraction doctor`` against an API server."""

import json
import re
import stat
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gpu_fraction.domain import keys
from gpu_fraction.kube.resources import ENDPOINT_SLICES, GPU_QUOTAS
from gpu_fraction.sandbox.apiserver import Answer, ApiServer, Fault, Kind, Text
from tests.builders.installation import NOW, healthy
from tests.support.access import kubeconfig, serving
from tests.unit.cli.conftest import Command, Result

ACCEPTED = Text(201, json.dumps({"metadata": {"name": "x", "annotations": {keys.REQUEST: "{}"}}}))
"""The trial pod as the webhook leaves it."""

Doctor = Callable[..., Result]


def current(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The objects with times of today: the command has a clock of its own."""
    now = datetime.now(UTC)
    text = json.dumps(objects)

    def moved(match: re.Match[str]) -> str:
        return (datetime.fromisoformat(match[0]) + (now - NOW)).strftime("%Y-%m-%dT%H:%M:%SZ")

    return json.loads(re.sub(r"2026-1[0-9]-\d\dT[\d:]+Z", moved, text))


@pytest.fixture
def api() -> ApiServer:
    """A healthy installation, whose webhook rewrites the trial pod."""
    server = ApiServer(kinds=[Kind(GPU_QUOTAS, ("gpuq",), status=True, generation=True)])
    server.add_namespace("gpu-fraction-system")
    server.add_namespace("team-a")
    for one in current(healthy()):
        if one["kind"] == "CustomResourceDefinition":
            one["status"]["conditions"][0]["status"] = "True"
        if one["kind"] != "Namespace":
            server.add(one)
    server.faults.add(Fault(ACCEPTED, "create", "pods", times=None))
    return server


@pytest.fixture
def doctor(api: ApiServer, command: Command, tmp_path: Path) -> Iterator[Doctor]:
    """Run the command as an administrator of that server."""
    with serving(api) as url:
        file = kubeconfig(tmp_path, url)
        yield lambda *words: command("doctor", "--kubeconfig", file, *words)


def test_a_healthy_installation(doctor: Doctor, api: ApiServer) -> None:
    """Exit code 0, nothing stored but read; the one creation is a dry run."""
    before = api.storage.revision
    result = doctor()
    assert (result.code, result.err) == (0, ""), result.out
    assert re.fullmatch(r"\d+ checks: \d+ ok\n", result.out)
    assert {verb for verb, _ in api.calls} <= {"get", "list", "create"}
    assert {r for verb, r in api.calls if verb == "create"} <= {"pods", ""}
    assert api.storage.revision == before


def test_a_fault_is_exit_code_1_in_every_format(doctor: Doctor, api: ApiServer) -> None:
    """Text, JSON, and commands alone."""
    api.remove(ENDPOINT_SLICES, "gpu-fraction-webhook-1", "gpu-fraction-system")
    for words, expected in (
        ((), "FAIL    webhook-endpoints: "),
        (("--print-fixes",), "\nkubectl -n gpu-fraction-system get pods"),
    ):
        result = doctor(*words)
        assert (result.code, result.err) == (1, "")
        assert expected in result.out
    shown = json.loads(doctor("-o", "json").out)
    assert [c["name"] for c in shown["checks"] if c["level"] == "fail"] == ["webhook-endpoints"]


def test_a_caller_without_rights_learns_which(doctor: Doctor, api: ApiServer) -> None:
    """Exit code 0: what was examined is right."""
    api.faults.add(
        Fault(Answer(403, "leases is forbidden: User"), "list", "leases.coordination.k8s.io")
    )
    result = doctor()
    assert result.code == 0
    expected = "SKIPPED leases: not permitted: list leases.coordination.k8s.io in namespace "
    assert expected in result.out


def test_before_an_installation(command: Command, tmp_path: Path) -> None:
    """An empty cluster is fit; afterwards it lacks everything."""
    with serving(ApiServer()) as url:
        file = kubeconfig(tmp_path, url)
        assert command("doctor", "--before", "--kubeconfig", file).code == 0
        result = command("doctor", "--kubeconfig", file)
    assert result.code == 1
    assert "no webhook configuration of gpu-fraction exists" in result.out


def test_wait_ends_with_the_fault(doctor: Doctor, api: ApiServer) -> None:
    """It says once what it waits for, and is content as soon as nothing fails."""
    api.faults.clear()
    api.faults.add(
        Fault(Answer(500, 'failed calling webhook "x": EOF'), "create", "pods", times=1)
    )
    api.faults.add(Fault(ACCEPTED, "create", "pods", times=None))
    result = doctor("--wait=30")
    assert (result.code, result.err) == (0, "waiting: webhook-call, proxy\n")


def test_wait_has_an_end(doctor: Doctor, api: ApiServer) -> None:
    """With the fault, and exit code 1."""
    api.remove(ENDPOINT_SLICES, "gpu-fraction-webhook-1", "gpu-fraction-system")
    result = doctor("--wait=1")
    assert result.code == 1
    assert "webhook-endpoints" in result.out


def test_a_bundle_is_for_its_owner_alone(doctor: Doctor, tmp_path: Path) -> None:
    """Written whole, beside the usual answer."""
    file = tmp_path / "report.json"
    result = doctor("--bundle", file)
    assert (result.code, "checks: " in result.out) == (0, True)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    content = json.loads(file.read_text())
    assert content["kind"] == "DoctorBundle"
    assert "-----BEGIN" not in file.read_text()
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--hash-names",), "--hash-names needs --bundle"),
        (("--bundle", "/nowhere/at/all"), "--bundle /nowhere/at/all: No such file"),
        (("--wait=0",), "is not 1 to 86400 seconds"),
    ],
)
def test_misuse_is_exit_code_2(doctor: Doctor, words: tuple[str, ...], said: str) -> None:
    """With the flag and what is allowed."""
    result = doctor(*words)
    assert result.code == 2
    assert said in result.err


def test_without_a_server_it_could_not_ask(command: Command, tmp_path: Path) -> None:
    """Exit code 2, and no finding."""
    file = kubeconfig(tmp_path, "http://127.0.0.1:1")
    result = command("doctor", "--kubeconfig", file)
    assert (result.code, result.out) == (2, "")
