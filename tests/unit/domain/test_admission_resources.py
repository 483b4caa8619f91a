"""GPU resources in a pod, with annotations and without."""

from collections.abc import Mapping

import pytest

from gpu_fraction.domain import keys
from gpu_fraction.domain.admission import Verdict
from tests.builders.pods import container, pod
from tests.unit.domain.verdicts import (
    NATIVE,
    QUARTER,
    admitted,
    refusals,
    verdict,
)


@pytest.mark.parametrize(
    "name",
    [
        "nvidia.com/gpu",
        "nvidia.com/gpumem",
        "nvidia.com/mig-1g.5gb",
        "nvidia.com/gpu.shared",
        "amd.com/gpu",
        "gpu.intel.com/i915",
        "koordinator.sh/gpu-core",
        "volcano.sh/vgpu-memory",
        "tencent.com/vcuda-core",
        "aliyun.com/gpu-mem",
        keys.SLOT,
        keys.MEMORY_MIB,
        "gpu-fraction.dev/core",
    ],
)
@pytest.mark.parametrize("kind", ["containers", "initContainers"])
@pytest.mark.parametrize("part", ["limits", "requests"])
def test_another_gpu_resource_contradicts_the_annotation(name: str, kind: str, part: str) -> None:
    """In any container, in limits or requests: two ways to ask are one too many."""
    raw = pod(QUARTER)
    other = {"name": "other", "resources": {part: {name: "1", "cpu": "1"}}}
    raw["spec"].setdefault(kind, []).append(other)
    index = len(raw["spec"][kind]) - 1
    assert refusals(raw) == [
        (
            f"spec.{kind}[{index}].resources[{name}]: requests a GPU in addition to the "
            "GPU annotations; remove one of the two"
        )
    ]


def test_another_gpu_resource_in_a_copied_pod() -> None:
    """Having been through here before is no licence for more."""
    copied = admitted(pod(QUARTER, container("main"), container("side")))
    copied["spec"]["containers"][1]["resources"] = {"limits": {"nvidia.com/gpu": "1"}}
    assert refusals(copied) == [
        (
            "spec.containers[1].resources[nvidia.com/gpu]: requests a GPU in addition to the "
            "GPU annotations; remove one of the two"
        )
    ]


def test_more_of_our_own_resource_in_a_copied_pod() -> None:
    """The amounts are compared."""
    copied = admitted(pod(QUARTER))
    for part in ("limits", "requests"):
        copied["spec"]["containers"][0]["resources"][part][keys.MEMORY_MIB] = "8192"
    assert refusals(copied) == [
        f'spec.containers[0].resources.{part}[gpu-fraction.dev/memory-mib]: is "8192", but the '
        "annotations request 4096; remove it, gpu-fraction sets it"
        for part in ("limits", "requests")
    ]


def test_native_resources_asked_directly_are_admitted() -> None:
    """Without annotations; the pod says all itself."""
    assert verdict(pod(None, container("main", NATIVE))) == Verdict()


def test_native_resources_asked_directly_are_guarded() -> None:
    """They give a GPU, so the rules of GPU pods hold."""
    raw = pod(
        None,
        container("main", NATIVE, securityContext={"privileged": True}),
        nodeName="n",
    )
    assert [line.partition(":")[0] for line in refusals(raw)] == [
        "spec.containers[0].securityContext.privileged",
        "spec.nodeName",
    ]


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("gpu-fraction.dev/core", '; did you mean "gpu-fraction.dev/core-milli"?'),
        ("gpu-fraction.dev/slots", '; did you mean "gpu-fraction.dev/slot"?'),
    ],
)
def test_a_resource_of_our_group_that_no_node_offers(name: str, near: str) -> None:
    """The pod would wait for ever, but it is not ours to forbid: a warning."""
    assert verdict(pod(None, container("main", {name: "60"}))) == Verdict(
        warnings=(
            (
                f"spec.containers[0].resources: no node offers {name}{near}; known: "
                "gpu-fraction.dev/slot, gpu-fraction.dev/core-milli, gpu-fraction.dev/memory-mib"
            ),
        )
    )


NEVER_SERVED = [
    pytest.param({"core_milli": "250"}, "slot", "asks for 0 of", id="core-only"),
    pytest.param({"memory_mib": "1024"}, "slot", "asks for 0 of", id="mem-only"),
    pytest.param({"slot": "1"}, "slot", "add one of the two", id="slot-only"),
    pytest.param(
        {"slot": "3", "core_milli": "250", "memory_mib": "1024"},
        "slot",
        "asks for 3 of gpu-fraction.dev/slot, allowed is exactly 1",
        id="slot-3",
    ),
    pytest.param(
        {"slot": "1", "core_milli": "1500", "memory_mib": "1001"},
        "memory-mib",
        "1001 over 2 cards, allowed: the same whole amount on each",
        id="odd memory",
    ),
    pytest.param(
        {"slot": "1", "core_milli": "1001", "memory_mib": "2"},
        "core-milli",
        "1001 over 2 cards, allowed: the same whole amount on each",
        id="odd compute",
    ),
    pytest.param(
        {"slot": "1", "core_milli": "0", "memory_mib": "1024"},
        "core-milli",
        "is 0, allowed: 1 or more",
        id="core-milli 0",
    ),
    pytest.param(
        {"slot": "1", "core_milli": "65537k"},
        "core-milli",
        "cards is 65537, allowed: 1 to 65536",
        id="more cards than counted",
    ),
    pytest.param(
        {"slot": "1", "core_milli": "17k"},
        "core-milli",
        "requests 17 GPUs, more than any node has; allowed: at most 16000",
        id="more cards than a node has",
    ),
    pytest.param(
        {"slot": "1", "core_milli": "2k", "memory_mib": "2097154"},
        "memory-mib",
        "requests 1048577 MiB on each GPU, more than any GPU has; allowed: at most 1048576",
        id="more memory than a card has",
    ),
]


def named(amounts: Mapping[str, str]) -> dict[str, str]:
    """Our resources by the ends of their names."""
    return {keys.PREFIX + name.replace("_", "-"): text for name, text in amounts.items()}


@pytest.mark.parametrize(("amounts", "field", "message"), NEVER_SERVED)
@pytest.mark.parametrize("part", ["containers", "sidecars"])
def test_resources_that_no_card_can_serve_are_refused(
    amounts: Mapping[str, str], field: str, message: str, part: str
) -> None:
    """With the field and what would pass, instead of a pod that waits or fails for ever."""
    one = container("x", named(amounts))
    raw, path = pod(None, container(), one), "spec.containers[1]"
    if part == "sidecars":
        raw, path = pod(None, init=[{**one, "restartPolicy": "Always"}]), "spec.initContainers[0]"
    (told,) = refusals(raw)
    assert told.startswith(f"{path}.resources[gpu-fraction.dev/{field}]: container x: ")
    assert message in told


@pytest.mark.parametrize("name", keys.NATIVE_RESOURCES)
def test_an_init_container_may_not_hold_a_gpu_by_resources_either(name: str) -> None:
    """The kubelet does not tell which init container it starts."""
    (told,) = refusals(pod(None, init=[container("setup", {name: "1"})]))
    assert told.startswith(f"spec.initContainers[0].resources[{name}]: init container setup: ")
    assert "restartPolicy: Always" in told


def test_every_container_that_cannot_be_served_is_named() -> None:
    """One try shows all that must be mended."""
    wrong = [container(name, {keys.MEMORY_MIB: "1"}) for name in ("a", "b")]
    paths = [told.partition(":")[0] for told in refusals(pod(None, *wrong))]
    assert paths == [f"spec.containers[{at}].resources[{keys.SLOT}]" for at in (0, 1)]


@pytest.mark.parametrize(
    "amounts",
    [
        {"slot": "1", "core_milli": "250"},
        {"slot": "1", "memory_mib": "1024"},
        {"slot": "1", "core_milli": "16k", "memory_mib": "16Mi"},
        {"slot": "0", "core_milli": "0", "memory_mib": "0"},
    ],
)
def test_resources_that_cards_can_serve_are_admitted(amounts: Mapping[str, str]) -> None:
    """Compute alone brings as large a share of any card's memory; zeros ask for nothing."""
    assert verdict(pod(None, container("main", named(amounts)))) == Verdict()
