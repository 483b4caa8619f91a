"""``gpu-fraction backends detect``: which stacks a cluster runs, and the settings for it."""

import json
from pathlib import Path
from typing import Any

import pytest

from gpu_fraction.sandbox.apiserver import Answer, ApiServer, Fault
from tests.support.access import kubeconfig, serving
from tests.unit.cli.conftest import Command

DATA = Path(__file__).parents[2] / "data" / "detect"
FILES = sorted(DATA.glob("*.json"))


def of(kind: str, name: str, **rest: Any) -> str:
    """An object of the cluster as JSON."""
    return json.dumps({"kind": kind, "metadata": {"name": name}, **rest})


def node(resources: dict[str, str], **metadata: Any) -> str:
    """A node as JSON."""
    metadata["name"] = "n"
    return json.dumps({"kind": "Node", "metadata": metadata, "status": {"capacity": resources}})


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_stack_is_found_in_its_own_cluster(command: Command, file: Path) -> None:
    """And no other: its setting is advised alone."""
    result = command("backends", "detect", "-f", file, "-o", "json")
    assert (result.code, result.err) == (0, "")
    settings = json.loads(result.out)["settings"]
    assert settings["backend"] == file.name.split(".")[0]
    assert settings["namespaceBackends"] == []


def test_a_reason_is_given(command: Command) -> None:
    """With everything that showed the stack."""
    result = command("backends", "detect", "-f", DATA / "hami.json")
    assert result.code == 0
    assert "annotation hami.io/node-nvidia-register, webhook vgpu.hami.io" in result.out
    assert "\nSettings: --backend hami\n" in result.out
    assert "\nReason: HAMi hands out the GPUs of 1 node(s)\n" in result.out


def test_two_stacks_on_different_nodes(command: Command) -> None:
    """The one with more nodes first, the other for namespaces."""
    nodes = [
        node({"nvidia.com/gpu": "80"}, annotations={"hami.io/node-nvidia-register": "[]"}),
        *(node({"nvidia.com/gpu": "8"}).replace('"n"', f'"n{i}"') for i in range(2)),
    ]
    text = f'{{"items": [{",".join(nodes)}]}}'
    result = command("backends", "detect", "-f", "-", stdin=text)
    assert "Settings: --backend nvidia --namespace-backends hami\n" in result.out
    assert "gpu-fraction.dev/backend" in result.out


def test_a_scheduler_that_runs_without_nodes(command: Command) -> None:
    """It is named as installed; a resource that a node has none of shows nothing."""
    text = "---\n".join(
        f"{one}\n"
        for one in (
            node({"nvidia.com/gpu": "0"}),
            of("MutatingWebhookConfiguration", "w", webhooks=[{"name": "vgpu.hami.io"}]),
        )
    )
    result = command("backends", "detect", "-f", "-", "-o", "json", stdin=f"# two\n{text}")
    found = json.loads(result.out)
    assert found["found"] == [{"backend": "hami", "nodes": [], "seen": ["webhook vgpu.hami.io"]}]
    assert found["settings"]["reason"] == "HAMi is installed, though no node shows its GPUs"


@pytest.mark.parametrize(
    "spec",
    [
        {"schedulerName": "kai-scheduler", "containers": [{"name": "c"}]},
        {"containers": [{"name": "c", "args": ["--scheduler-name=kai-scheduler"]}]},
        {"containers": [{"name": "c", "command": ["s", "--scheduler-name", "kai-scheduler"]}]},
    ],
)
@pytest.mark.parametrize("template", [False, True])
def test_a_scheduler_of_pods(command: Command, spec: dict[str, Any], template: bool) -> None:
    """That pods use, or that runs in one; in pods and in what makes them."""
    body = {"template": {"spec": spec}} if template else spec
    text = of("Deployment" if template else "Pod", "p", spec=body)
    result = command("backends", "detect", "-f", "-", "-o", "json", stdin=text)
    (found,) = json.loads(result.out)["found"]
    assert (found["backend"], found["seen"]) == ("kai", ["scheduler kai-scheduler"])


@pytest.mark.parametrize(
    ("capacity", "backends"),
    [
        ({"cpu": "4"}, []),
        ({"nvidia.com/gpu": "1"}, ["nvidia"]),
        ({"volcano.sh/vgpu-number": "10"}, ["volcano"]),
    ],
)
def test_a_scheduler_of_several_stacks(
    command: Command, capacity: dict[str, str], backends: list[str]
) -> None:
    """Volcano schedules batches in clusters without its GPUs, and names no stack there."""
    text = (
        "# two\n" + node(capacity) + "\n---\n" + of("Pod", "p", spec={"schedulerName": "volcano"})
    )
    result = command("backends", "detect", "-f", "-", "-o", "json", stdin=text)
    assert [one["backend"] for one in json.loads(result.out)["found"]] == backends


def test_nothing_is_found(command: Command) -> None:
    """Said with what was read."""
    result = command("backends", "detect", "-f", "-", stdin=node({"cpu": "4"}))
    assert result.code == 0
    assert "known stacks shows in 1 node(s), 0 CRD(s)" in result.out
    as_json = command("backends", "detect", "-o", "json", "-f", "-", stdin=node({"cpu": "4"}))
    assert json.loads(as_json.out) == {
        "found": [],
        "settings": {"backend": None, "namespaceBackends": []},
    }


@pytest.mark.parametrize("text", ["{", "a: [", '{"items": "\\ud800"'])
def test_a_file_that_is_no_list(command: Command, tmp_path: Path, text: str) -> None:
    """The message names it."""
    (tmp_path / "f").write_text(text)
    for file in (tmp_path / "f", tmp_path / "missing"):
        result = command("backends", "detect", "-f", file)
        assert (result.code, result.out) == (2, "")
        assert str(file) in result.err


@pytest.mark.parametrize(
    "text", ["", "[]", "text", '{"items": null}', '{"kind": 1, "items": [3]}']
)
def test_other_documents_show_nothing(command: Command, text: str) -> None:
    """Nothing of them is an error."""
    assert command("backends", "detect", "-f", "-", stdin=text).code == 0


def test_without_a_cluster_and_without_a_file(command: Command) -> None:
    """Both ways are named."""
    result = command("backends", "detect")
    assert (result.code, result.out) == (2, "")
    assert "--kubeconfig is required outside a cluster, or -f with recorded lists" in result.err


def test_a_cluster_is_read(command: Command, tmp_path: Path) -> None:
    """What it does not serve is left out with a warning, as what may not be read."""
    api = ApiServer()
    for one in json.loads((DATA / "hami.json").read_text())["items"]:
        if one["kind"] != "CustomResourceDefinition":
            api.add(one)
    api.faults.add(Fault(Answer(403, "nobody may"), resource="pods"))
    api.faults.add(Fault(Answer(404, "no kind"), resource="resourceslices.resource.k8s.io"))
    with serving(api) as url:
        result = command("backends", "detect", f"--kubeconfig={kubeconfig(tmp_path, url)}")
    assert result.code == 0
    assert "annotation hami.io/node-nvidia-register, webhook vgpu.hami.io\n" in result.out
    assert "Settings: --backend hami\n" in result.out
    assert "Warning: pods are left out: " in result.err
    assert "Warning: resourceslices are left out: " in result.err


def test_a_cluster_that_fails(command: Command, tmp_path: Path) -> None:
    """The reason, and exit code 1."""
    api = ApiServer(tokens={"t": "somebody"})
    with serving(api) as url:
        result = command("backends", "detect", f"--kubeconfig={kubeconfig(tmp_path, url)}")
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith("gpu-fraction backends: ")
