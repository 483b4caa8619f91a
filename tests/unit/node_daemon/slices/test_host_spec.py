"""Device nodes and driver files come from the host's own CDI specification."""

import json
from pathlib import Path
from typing import Any

import pytest

from gpu_fraction.domain import keys
from tests.support.node_rig import Rig, StartError, node, rig_card, share

SPEC = {
    "cdiVersion": "0.7.0",
    "kind": "nvidia.com/gpu",
    "devices": [
        {
            "name": f"GPU-{i}",
            "containerEdits": {
                "deviceNodes": [{"path": f"/dev/nvidia{i}"}, {"path": "/dev/dri/shared"}],
                "additionalGids": [44],
            },
        }
        for i in range(2)
    ],
    "containerEdits": {
        "env": ["NVIDIA_VISIBLE_DEVICES=void", "GPU_FRACTION=1"],
        "deviceNodes": [{"path": "/dev/nvidiactl"}],
        "mounts": [
            {"hostPath": "/usr/lib/libcuda.so.1", "containerPath": "/usr/lib/libcuda.so.1"}
        ],
        "hooks": [{"hookName": "createContainer", "path": "/usr/bin/nvidia-cdi-hook"}],
    },
}


def written(rig: Rig) -> dict[str, Any]:
    """The only slice file."""
    (name,) = rig.files() - {"nvidia.json", "nvidia.yaml"}
    spec: dict[str, Any] = json.loads((rig.paths.cdi / name).read_bytes())
    return spec


def write_spec(rig: Rig, spec: dict[str, Any]) -> None:
    """What nvidia-ctk leaves on the host."""
    (rig.paths.host_cdi[0] / "nvidia.json").write_text(json.dumps(spec))


async def test_edits_of_the_host_are_copied(tmp_path: Path) -> None:
    """Everything once, ours last; the version is the higher one."""
    async with node(tmp_path, rig_card(0), rig_card(1)) as rig:
        write_spec(rig, SPEC)
        off = {keys.FRAMEWORK_ENV: "off"}
        await rig.run_pod(rig.pod({"main": [share(0), share(1)]}, annotations=off))
        spec = written(rig)
        (device,) = spec["devices"]
        edits = device["containerEdits"]
        assert spec["cdiVersion"] == "0.7.0"
        assert edits["deviceNodes"] == [
            {"path": "/dev/nvidiactl"},
            {"path": "/dev/nvidia0"},
            {"path": "/dev/dri/shared"},
            {"path": "/dev/nvidia1"},
        ]
        assert edits["additionalGids"] == [44]
        assert edits["mounts"] == SPEC["containerEdits"]["mounts"]
        assert edits["hooks"] == SPEC["containerEdits"]["hooks"]
        assert edits["env"] == [
            "GPU_FRACTION=0.25",
            "GPU_FRACTION_DEVICES=GPU-0,GPU-1",
            "GPU_MEMORY_LIMIT_MIB=10000",
            "NVIDIA_VISIBLE_DEVICES=void",
        ]


@pytest.mark.parametrize("env", [[], ["NVIDIA_VISIBLE_DEVICES=all"]])
async def test_nvidias_runtime_adds_no_card_to_what_is_copied(
    tmp_path: Path, env: list[str]
) -> None:
    """A ConfigMap can name cards unseen by the webhook; the host's file need not forbid it."""
    async with node(tmp_path, rig_card(0)) as rig:
        write_spec(rig, {**SPEC, "containerEdits": {"env": env}})
        started = await rig.run_pod(rig.pod({"main": [share(0)]}))
        assert started["main"].env["NVIDIA_VISIBLE_DEVICES"] == "void"


async def test_yaml_is_read_too(tmp_path: Path) -> None:
    """nvidia-ctk writes YAML unless told otherwise."""
    async with node(tmp_path, rig_card(0)) as rig:
        (rig.paths.cdi / "nvidia.yaml").write_text(
            'cdiVersion: "0.5.0"\nkind: nvidia.com/gpu\ndevices:\n- name: GPU-0\n'
            "  containerEdits:\n    deviceNodes:\n    - path: /dev/nvidia7\n"
        )
        await rig.run_pod(rig.pod({"main": [share(0)]}))
        edits = written(rig)["devices"][0]["containerEdits"]
        assert edits["deviceNodes"] == [{"path": "/dev/nvidia7"}]


async def test_changed_host_is_copied_again(tmp_path: Path) -> None:
    """A driver upgrade moves files; living slices follow, under the same name."""
    async with node(tmp_path, rig_card(0)) as rig:
        write_spec(rig, SPEC)
        await rig.run_pod(rig.pod({"main": [share(0)]}))
        before = written(rig)
        moved = json.loads(json.dumps(SPEC).replace("libcuda.so.1", "libcuda.so.575"))
        write_spec(rig, moved)
        await rig.until(lambda: "libcuda.so.575" in json.dumps(written(rig)))
        assert written(rig)["devices"][0]["name"] == before["devices"][0]["name"]


async def test_card_that_the_host_does_not_know_is_refused(tmp_path: Path) -> None:
    """An index would not do: it may have moved since the file was written."""
    async with node(tmp_path, rig_card(0)) as rig:
        by_index = {**SPEC, "devices": [{"name": "0", "containerEdits": {}}]}
        write_spec(rig, by_index)
        pod = rig.pod({"main": [share(0)]})
        await rig.admit(pod)
        with pytest.raises(StartError, match="--device-name-strategy=uuid"):
            await rig.kubelet.start_container(pod.uid, "main")
        write_spec(rig, SPEC)
        await rig.start(pod)


@pytest.mark.parametrize("content", ["nvidia.com/gpu: [", '{"kind": 5, "x": "nvidia.com/gpu"}'])
async def test_unreadable_specification_is_refused(tmp_path: Path, content: str) -> None:
    """A container without its driver is worse than one that waits."""
    async with node(tmp_path, rig_card(0)) as rig:
        path = rig.paths.host_cdi[0] / "nvidia.yaml"
        path.write_text(content)
        pod = rig.pod({"main": [share(0)]})
        await rig.admit(pod)
        with pytest.raises(StartError, match="not a CDI specification"):
            await rig.kubelet.start_container(pod.uid, "main")
        path.unlink()
        await rig.start(pod)
