"""The container that gets the share, whatever other webhooks insert."""

from collections.abc import Mapping

import pytest

from gpu_fraction.domain import keys
from tests.builders.pods import Raw, container, pod
from tests.unit.domain.verdicts import (
    QUARTER,
    REQUEST,
    admitted,
    refusals,
    verdict,
)


def test_an_injected_container_is_not_the_first() -> None:
    """The share stays with the container that the first call gave it to, and cannot be moved."""
    after = admitted(pod(QUARTER))
    present = after["spec"]["containers"]
    present.insert(0, container("mesh"))
    assert verdict(after).operations == []
    del present[1]
    assert [told.partition(":")[0] for told in refusals(after)] == [
        "metadata.annotations[gpu-fraction.dev/request]"
    ]


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("kind", ["containers", "initContainers"])
@pytest.mark.parametrize("sidecar", [True, False])
def test_what_is_injected_after_the_first_call_changes_nothing(
    before: bool, kind: str, sidecar: bool
) -> None:
    """The slice is found by name wherever the others stand, at reinvocation and at validation."""
    policy = {"restartPolicy": "Always"} if sidecar else {}
    for raw, own in (
        (pod(QUARTER), "containers"),
        (
            pod(
                {f"{keys.CONTAINER_PREFIX}side": "0.25"},
                init=[container("side", restartPolicy="Always")],
            ),
            "initContainers",
        ),
    ):
        after = admitted(raw)
        present = after["spec"].setdefault(kind, [])
        present.insert(0 if before else len(present), container("mesh", **policy))
        assert verdict(after).operations == []
        assert [c["name"] for c in after["spec"][own] if keys.SLOT in str(c.get("resources"))] == [
            "main" if own == "containers" else "side"
        ]


MAIN_CONTAINER = "kubectl.kubernetes.io/default-container"


def getting(raw: Raw) -> list[str]:
    """The containers that hold a GPU."""
    return [c["name"] for c in raw["spec"]["containers"] if keys.SLOT in str(c.get("resources"))]


def test_a_container_injected_before_the_first_call_is_not_the_main_one() -> None:
    """Injectors say which one is, by kubectl's annotation; nothing is left to be warned of."""
    raw = pod({**QUARTER, MAIN_CONTAINER: "main"}, container("fuse-sidecar"), container())
    assert getting(admitted(raw)) == ["main"]
    assert not any("to give it to another" in told for told in verdict(raw).warnings)


def test_the_annotation_of_ours_counts_before_kubectls() -> None:
    """It is about GPUs."""
    notes = {**QUARTER, MAIN_CONTAINER: "main", keys.CONTAINER_NAME: "trainer"}
    assert getting(admitted(pod(notes, container(), container("trainer")))) == ["trainer"]


def test_kubectls_annotation_moves_no_share_after_the_first_call() -> None:
    """An injector that comes later may set it."""
    after = admitted(pod(QUARTER, container(), container("side")))
    after["metadata"]["annotations"][MAIN_CONTAINER] = "side"
    assert verdict(after).operations == []


@pytest.mark.parametrize("main", [None, "gone", "setup"])
def test_the_first_of_several_containers_gets_the_share_with_a_warning(main: str | None) -> None:
    """Nothing tells which is the user's own; the names and the annotation are in the warning."""
    notes = {**QUARTER, **({MAIN_CONTAINER: main} if main else {})}
    raw = pod(notes, container("fuse-sidecar"), container("main"), init=[container("setup")])
    assert verdict(raw).warnings[0] == (
        "container fuse-sidecar gets the GPU because it is the first container; to give it to "
        "another (main), set the annotation gpu-fraction-container-name"
    )
    assert getting(admitted(raw)) == ["fuse-sidecar"]


@pytest.mark.parametrize(
    ("notes", "containers"),
    [
        pytest.param(QUARTER, ["main"], id="one container"),
        pytest.param({**QUARTER, keys.CONTAINER_NAME: "side"}, ["main", "side"], id="named"),
        pytest.param(
            {**QUARTER, f"{keys.CONTAINER_PREFIX}side": "0.1"}, ["main", "side"], id="own share"
        ),
        pytest.param(
            {f"{keys.CONTAINER_PREFIX}side": "0.1"}, ["main", "side"], id="shares by name only"
        ),
    ],
)
def test_nobody_is_warned_where_one_container_can_be_meant(
    notes: Mapping[str, str], containers: list[str]
) -> None:
    """A warning at each pod would be read by nobody."""
    told = verdict(pod(notes, *map(container, containers))).warnings
    assert not any("to give it to another" in line for line in told)


def test_a_request_annotation_moves_no_share_to_an_init_container() -> None:
    """Only a regular container is chosen for a share that names none."""
    forged = REQUEST.replace("main", "setup")
    raw = pod({**QUARTER, keys.REQUEST: forged}, init=[container("setup")])
    (told,) = refusals(raw)
    assert "only gpu-fraction sets it; remove the value" in told
