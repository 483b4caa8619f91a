"""``gpu-fraction cleanup`` against a server with nodes that an installation has left."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gpu_fraction.domain import keys
from gpu_fraction.kube.resources import NODES
from gpu_fraction.sandbox.apiserver import Answer, ApiServer, Fault, Kind
from tests.builders.views import Raw, server
from tests.support.access import kubeconfig, serving
from tests.unit.cli.conftest import Command, Result

Clean = Callable[..., Result]


def node(name: str, *, left: bool) -> Raw:
    """A node with fields of others, and with ours if ``left``."""
    labels = {keys.LABEL_MODEL: "A100", keys.LABEL_SIMULATED: "true"} if left else {}
    annotations = {keys.INVENTORY: "{}"} if left else {}
    amounts = {keys.SLOT: "0", keys.CORE_MILLI: "2k", "gpu-fraction.dev/new": "1"} if left else {}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {"kubernetes.io/hostname": name, **labels},
            "annotations": {"example.com/gpu-fraction.dev": "x", **annotations},
        },
        "status": {
            "capacity": {"cpu": "2", "nvidia.com/gpu": "1", **amounts},
            "allocatable": {"cpu": "2", **amounts},
        },
    }


@pytest.fixture
def api() -> ApiServer:
    """Two nodes, of which one was used."""
    return server(node("used", left=True), node("other", left=False))


@pytest.fixture
def clean(api: ApiServer, tmp_path: Path, command: Command) -> Iterator[Clean]:
    """Run the command against it."""
    with serving(api) as url:
        file = kubeconfig(tmp_path, url)
        yield lambda *words: command("cleanup", f"--kubeconfig={file}", *words)


def stored(api: ApiServer, name: str) -> Raw:
    """A node's fields."""
    found = api.storage.get(Kind(NODES), ("", name))
    assert found is not None
    return fields(found.copy())


def fields(manifest: Raw) -> Raw:
    """Those of a manifest."""
    meta = manifest["metadata"]
    return {"labels": meta["labels"], "annotations": meta["annotations"], **manifest["status"]}


def test_nodes_lose_what_is_ours_and_nothing_else(api: ApiServer, clean: Clean) -> None:
    """A dry run shows it first; a second run finds nothing."""
    names = (
        "gpu-fraction.dev/core-milli, gpu-fraction.dev/gpu.model, gpu-fraction.dev/inventory, "
        "gpu-fraction.dev/new, gpu-fraction.dev/simulated, gpu-fraction.dev/slot"
    )
    assert clean("--nodes", "--dry-run") == Result(0, f"node/used would lose {names}\n", "")
    assert stored(api, "used") == fields(node("used", left=True))
    assert clean("--nodes") == Result(0, f"node/used lost {names}\n", "")
    for name in ("used", "other"):
        assert stored(api, name) == fields(node(name, left=False))
    assert clean("--nodes").out == "2 nodes, and nothing of gpu-fraction.dev on them\n"


def test_an_installed_node_daemon_would_write_it_again(api: ApiServer, clean: Clean) -> None:
    """Nothing is changed while one is there, whatever the release's name is."""
    labels = {
        "app.kubernetes.io/part-of": "gpu-fraction",
        "app.kubernetes.io/component": "node-daemon",
    }
    meta = {"name": "gpus-node-daemon", "namespace": "sharing", "labels": labels}
    api.add_namespace("sharing")
    api.add({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": meta, "spec": {}})
    done = clean("--nodes")
    assert (done.code, done.out) == (1, "")
    assert "DaemonSet sharing/gpus-node-daemon runs the node daemon" in done.err
    assert stored(api, "used") == fields(node("used", left=True))


def test_without_the_right_it_says_so(api: ApiServer, clean: Clean) -> None:
    """The server's refusal, and no half-done output."""
    api.faults.add(Fault(Answer(403, "no"), "patch", "nodes", times=None))
    done = clean("--nodes")
    assert (done.code, done.out) == (2, "")
    assert "ask an administrator for the right" in done.err


def test_what_to_clean_is_named(clean: Clean) -> None:
    """Without ``--nodes`` nothing happens."""
    done = clean()
    assert done.code == 2
    assert "--nodes" in done.err
