"""Admission of new pods: opting in, variables, taints, schedulers, policies."""

import copy
from typing import Any

import pytest

from gpu_fraction.domain import keys
from gpu_fraction.domain.admission import Verdict, uses_gpu
from gpu_fraction.domain.backends import BACKENDS
from tests.builders.pods import Raw, container, env, pod, typed
from tests.unit.domain.verdicts import (
    GPU_TAINT,
    NATIVE,
    QUARTER,
    REQUEST,
    admitted,
    refusals,
    verdict,
)


def test_a_quarter_of_a_card() -> None:
    """The whole way: one annotation in, the right pod out."""
    raw = pod(QUARTER, container("main", {"cpu": "1"}), container("side"))
    expected = copy.deepcopy(raw)
    expected["metadata"]["annotations"][keys.REQUEST] = REQUEST
    main = expected["spec"]["containers"][0]
    main["resources"] = {"limits": {"cpu": "1", **NATIVE}, "requests": {"cpu": "1", **NATIVE}}
    main["env"] = [
        {"name": "GPU_FRACTION", "value": "0.25"},
        {"name": "GPU_MEMORY_LIMIT_MIB", "value": "4096"},
    ]
    expected["spec"]["schedulerName"] = "gpu-fraction-scheduler"
    expected["spec"]["tolerations"] = [GPU_TAINT]
    assert admitted(raw) == expected


@pytest.mark.parametrize("resources", [{"cpu": "1"}, {"nvidia.com/gpu": "1"}])
@pytest.mark.parametrize("backend", sorted(BACKENDS))
def test_a_pod_that_does_not_opt_in_is_left_as_it_is(
    backend: str, resources: dict[str, str]
) -> None:
    """No patch, no warning, whatever else it does, and whatever it asks of a device plugin."""
    raw = pod(
        {"example.com/x": "y"},
        container(
            "main",
            resources,
            securityContext={"privileged": True},
            env=env(("CUDA_VISIBLE_DEVICES", "0"), ("CUDA_MPS_PIPE_DIRECTORY", "/x")),
        ),
        nodeName="n",
        schedulerName="s",
        volumes=[{"name": "h", "hostPath": {"path": "/dev"}}],
    )
    assert verdict(raw, backend) == Verdict()


def test_a_pod_that_asks_a_device_plugin_chooses_no_cards() -> None:
    """It would have others than the plugin gave it, and be charged for those."""
    chosen = env(("NVIDIA_VISIBLE_DEVICES", "all"))
    (told,) = refusals(pod(None, container("main", {"nvidia.com/gpu": "1"}, env=chosen)))
    assert told.startswith("spec.containers[0].env[0]: NVIDIA_VISIBLE_DEVICES may not be set")


def test_problems_of_annotations_and_of_the_pod_are_named_together() -> None:
    """Whichever part of it they are in."""
    raw = pod({"gpu-fraction": "1.5", keys.ASSIGNED: "x"}, nodeName="n")
    told = refusals(raw)
    assert [line.partition(":")[0] for line in told] == [
        "metadata.annotations[gpu-fraction]",
        "spec.nodeName",
        "metadata.annotations[gpu-fraction.dev/assigned]",
    ]


@pytest.mark.parametrize("value", ["all", "void", "none"])
@pytest.mark.parametrize(
    "annotations", [QUARTER, {"gpu-fraction.dev/container.main": "0.25"}, {"gpu-memory": "1Gi"}]
)
def test_a_container_that_gets_a_gpu_chooses_no_cards(
    annotations: dict[str, str], value: str
) -> None:
    """Refused before anything is written, as it will be afterwards."""
    raw = pod(annotations, container("main", env=env(("NVIDIA_VISIBLE_DEVICES", value))))
    (told,) = refusals(raw)
    assert told.startswith("spec.containers[0].env[0]: NVIDIA_VISIBLE_DEVICES may not be set")


def test_a_container_beside_it_may_choose_none() -> None:
    """It has no card to lose."""
    side = container("side", env=env(("NVIDIA_VISIBLE_DEVICES", "void")))
    assert admitted(pod(QUARTER, container("main"), side))["spec"]["containers"][1] == side


@pytest.mark.parametrize("backend", ["hami", "kai", "native", "nvidia", "nvidia-dra"])
def test_a_pod_may_run_on_nodes_with_the_taint_of_gpus(backend: str) -> None:
    """GKE and others set it; what the author tolerates besides stays."""
    other = {"key": "sku", "operator": "Equal", "value": "gpu", "effect": "NoSchedule"}
    raw = pod({"gpu-fraction": "1"})
    assert admitted(raw, backend)["spec"]["tolerations"] == [GPU_TAINT]
    raw["spec"]["tolerations"] = [other]
    assert admitted(raw, backend)["spec"]["tolerations"] == [other, GPU_TAINT]
    raw["spec"]["tolerations"] = [GPU_TAINT, other]
    assert admitted(raw, backend)["spec"]["tolerations"] == [GPU_TAINT, other]
    assert verdict(pod(None, container("main", {"nvidia.com/gpu": "1"})), backend) == Verdict()


@pytest.mark.parametrize(
    ("backend", "scheduler"), [("native", "gpu-fraction-scheduler"), ("hami", "hami-scheduler")]
)
@pytest.mark.parametrize("given", [None, "", "default-scheduler", "its own"])
def test_the_backends_scheduler(backend: str, scheduler: str, given: str | None) -> None:
    """Filled in where nobody chose one."""
    raw = pod(QUARTER)
    if given is not None:
        raw["spec"]["schedulerName"] = scheduler if given == "its own" else given
    assert admitted(raw, backend)["spec"]["schedulerName"] == scheduler


def test_another_scheduler_is_refused_or_kept() -> None:
    """By policy; it does not know about shares."""
    raw = pod(QUARTER, schedulerName="volcano")
    assert refusals(raw) == [
        (
            'spec.schedulerName: "volcano" cannot place shares of GPUs; remove the field and '
            "gpu-fraction-scheduler is set (cluster setting policy_other_scheduler)"
        )
    ]
    kept = verdict(raw, other_scheduler="allow")
    assert not [op for op in kept.operations if op["path"] == "/spec/schedulerName"]


def test_a_backend_without_a_scheduler_takes_any() -> None:
    """Whole cards are known to every scheduler."""
    raw = pod({"gpu-fraction": "1"}, schedulerName="volcano")
    assert admitted(raw, "nvidia")["spec"]["schedulerName"] == "volcano"


@pytest.mark.parametrize(
    ("policy", "change"),
    [
        ("node_name", {"nodeName": "n"}),
        ("host_devices", {"volumes": [{"name": "h", "hostPath": {"path": "/dev"}}]}),
    ],
)
def test_policies_can_be_opened_one_by_one(policy: str, change: dict[str, Any]) -> None:
    """Each knob opens its own door only."""
    raw = pod(QUARTER, **change)
    assert len(refusals(raw)) == 1
    opened: dict[str, Any] = {policy: "allow"}
    assert verdict(raw, **opened).operations


def test_rounding_is_said() -> None:
    """What the user wrote is no whole number of MiB."""
    warnings = verdict(pod({"gpu-memory": "8G"})).warnings
    assert warnings == (
        "gpu-memory 8G is rounded up to 7630 MiB",
        "container main: 7630 MiB comes with 46.5% of a GPU's compute",
    )


def test_rounding_of_shares_is_said() -> None:
    """Of each that has more decimals than count; zeros are none."""
    given = {
        "gpu-fraction": "0.3333",
        "gpu-cores": "33.33%",
        "gpu-fraction.dev/container.b": ".99960",
        "gpu-fraction.dev/container.c": "0.50000",
        "gpu-fraction.dev/gpu-model": "!X1.23456",
    }
    found = verdict(pod(given, *map(container, "abc")))
    assert [line for line in found.warnings if "nearest" in line] == [
        "gpu-fraction 0.3333 is taken as 0.333, the nearest 0.001 of a GPU",
        "gpu-cores 33.33% is taken as 0.333, the nearest 0.001 of a GPU",
        "gpu-fraction.dev/container.b .99960 is taken as 1, the nearest 0.001 of a GPU",
    ]
    assert found.request is not None
    assert [part.core_milli for part in found.request.slices] == [333, 1000, 500]


@pytest.mark.parametrize(
    ("raw", "uses"),
    [
        (pod(), False),
        (pod({"a": "b"}), False),
        (pod(QUARTER), True),
        (pod({"gpu-typo": ""}), True),
        (pod({keys.ASSIGNED: ""}), True),
        (pod(None, container("main", {"cpu": "1"})), False),
        (pod(None, container("main", {"nvidia.com/gpu": "1"})), False),
        (pod(None, container("main", {keys.SLOT: "1"})), True),
        (pod(None, init=[container("i", {keys.MEMORY_MIB: "1"})]), True),
    ],
)
def test_whose_pods_are_judged(raw: Raw, uses: bool) -> None:
    """An annotation of ours, or a native resource in any container."""
    assert uses_gpu(typed(raw)) is uses
