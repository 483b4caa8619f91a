"""Pods that KAI-Scheduler schedules."""

from collections.abc import Mapping
from typing import Any

import pytest

from gpu_fraction.domain import keys
from gpu_fraction.domain.admission import Rules, Verdict, admit
from gpu_fraction.domain.backends import BACKENDS
from gpu_fraction.domain.request import Refused
from tests.builders.pods import Raw, container, env, pod, typed
from tests.unit.domain.verdicts import (
    CONFIG,
    NATIVE,
    QUARTER,
    refusals,
    verdict,
)


def kai(annotations: Mapping[str, str] | None, *containers: Raw, **spec: Any) -> Raw:
    """A pod that names KAI's scheduler."""
    return pod(annotations, *containers, schedulerName="kai-scheduler", **spec)


def test_kais_pods_are_left_to_kai() -> None:
    """Its users write the same annotations, and values of its own."""
    assert verdict(kai({"gpu-fraction": "0.5", "gpu-memory": "nonsense to us"})) == Verdict(
        warnings=("gpu-fraction does not change pods that kai-scheduler schedules",)
    )
    assert verdict(kai(None)) == Verdict()


def test_which_schedulers_are_left_alone_is_configuration() -> None:
    """An empty list leaves none; the policy on other schedulers then holds."""
    raw = typed(kai(QUARTER))
    with pytest.raises(Refused, match="policy_other_scheduler"):
        admit(raw, BACKENDS["native"](CONFIG), Rules(left_to=frozenset()))
    other = typed(pod(QUARTER, schedulerName="other"))
    assert not admit(
        other, BACKENDS["native"](CONFIG), Rules(left_to=frozenset({"other"}))
    ).operations


def test_kais_pods_may_not_preset_a_node() -> None:
    """That goes past KAI too, so that its name would be a way round everything."""
    (told,) = refusals(kai(QUARTER, nodeName="n"))
    assert told.startswith("spec.nodeName: ")
    assert verdict(kai(QUARTER, nodeName="n"), node_name="allow").operations == []
    assert verdict(kai(None, nodeName="n")) == Verdict()


@pytest.mark.parametrize("key", [keys.REQUEST, keys.ASSIGNED])
def test_kais_name_does_not_open_system_annotations(key: str) -> None:
    """They mean the same whoever schedules the pod."""
    raw = kai({**QUARTER, key: "x"})
    assert refusals(raw) == [f"metadata.annotations[{key}]: only gpu-fraction sets it; remove it"]
    assert verdict(raw, trusted=True).operations == []


def test_kais_name_does_not_open_native_resources() -> None:
    """A pod that takes a native slice is ours to judge."""
    (told,) = refusals(kai(None, container("main", NATIVE, securityContext={"privileged": True})))
    assert told.startswith("spec.containers[0].securityContext.privileged")
    (told, *_) = refusals(kai(QUARTER, container("main", NATIVE)))
    assert told.startswith(
        f"spec.containers[0].resources[{keys.SLOT}]: requests a GPU in addition to"
    )


MAP = {"runai/shared-gpu-configmap": "p-x2x4x6x-shared-gpu"}


def told_by(name: str, config_map: str, key: str = "NVIDIA_VISIBLE_DEVICES") -> Raw:
    """A container whose cards are told by a ConfigMap, as KAI writes it."""
    source = {"configMapKeyRef": {"name": config_map, "key": key}}
    return container(name, env=[{"name": "NVIDIA_VISIBLE_DEVICES", "valueFrom": source}])


@pytest.mark.parametrize(
    ("annotations", "at"),
    [
        (QUARTER, ("containers", 0)),
        ({"gpu-memory": "2048"}, ("containers", 0)),
        ({**QUARTER, "gpu-fraction-container-name": "side"}, ("containers", 1)),
        ({**QUARTER, "gpu-fraction-container-name": "setup"}, ("initContainers", 0)),
    ],
)
def test_kai_tells_the_container_it_gives_cards(
    annotations: dict[str, str], at: tuple[str, int]
) -> None:
    """By a reference to a ConfigMap of its own; in every other container it is the author's."""
    kinds = {"containers": ["main", "side"], "initContainers": ["setup", "more"]}
    for kind, names in kinds.items():
        for index, name in enumerate(names):
            made = kai({**annotations, **MAP}, container("main"), container("side"))
            made["spec"]["initContainers"] = [container("setup"), container("more")]
            mark = "i" if kind == "initContainers" else ""
            made["spec"][kind][index] = told_by(name, f"p-x2x4x6x-shared-gpu-{mark}{index}")
            if (kind, index) == at:
                assert verdict(made).operations == []
            else:
                (told,) = refusals(made)
                assert told.startswith(f"spec.{kind}[{index}].env[0]: NVIDIA_VISIBLE_DEVICES")


def test_kai_before_0_7_4_used_another_key() -> None:
    """Of the same ConfigMap."""
    told = told_by("main", "p-x2x4x6x-shared-gpu-0", "RUNAI-VISIBLE-DEVICES")
    assert verdict(kai({**QUARTER, **MAP}, told)).operations == []


@pytest.mark.parametrize(
    ("annotations", "told", "spec"),
    [
        pytest.param(None, told_by("main", "mine"), {}, id="asks-nothing-of-kai"),
        pytest.param(MAP, told_by("main", "p-x2x4x6x-shared-gpu-0"), {}, id="only-kais-mark"),
        pytest.param(QUARTER, told_by("main", "p-x2x4x6x-shared-gpu-0"), {}, id="no-mark-of-kais"),
        pytest.param(
            {"nvidia.com/container.main.gpu-memory.request": "2Gi", **MAP},
            told_by("main", "p-x2x4x6x-shared-gpu-0"),
            {},
            id="asks-nothing-of-an-older-kai",
        ),
        pytest.param({**QUARTER, **MAP}, told_by("main", "mine"), {}, id="another-map"),
        pytest.param(
            {**QUARTER, **MAP}, told_by("main", "p-x2x4x6x-shared-gpu-0", "all"), {}, id="key"
        ),
        pytest.param(
            {**QUARTER, **MAP},
            container("main", env=[{"name": "NVIDIA_VISIBLE_DEVICES", "valueFrom": {"x": {}}}]),
            {},
            id="another-source",
        ),
        pytest.param(
            {**QUARTER, **MAP},
            told_by("main", "p-x2x4x6x-shared-gpu-0"),
            {"nodeName": "n"},
            id="kai-never-sees-it",
        ),
    ],
)
def test_a_reference_that_kai_did_not_write(
    annotations: dict[str, str] | None, told: Raw, spec: dict[str, Any]
) -> None:
    """The name of its scheduler alone is no way round, whether or not it runs in the cluster."""
    (line,) = refusals(kai(annotations, told, **spec), node_name="allow")
    assert line.startswith("spec.containers[0].env[0]: NVIDIA_VISIBLE_DEVICES may not be set")


def test_cards_that_are_written_out_in_a_pod_of_kais() -> None:
    """A literal is the author's, and harmless where it names none."""
    users = container("main", env=env(("NVIDIA_VISIBLE_DEVICES", "all"), ("GPU_PORTION", None)))
    for annotations in (None, {**QUARTER, **MAP}):
        (told,) = refusals(kai(annotations, users))
        assert told.startswith("spec.containers[0].env[0]: NVIDIA_VISIBLE_DEVICES may not be set")
    harmless = container("main", env=env(("NVIDIA_VISIBLE_DEVICES", "void")))
    assert not verdict(kai(None, harmless)).operations
