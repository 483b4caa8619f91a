"""System annotations and copied pods."""

from collections.abc import Mapping

import pytest

from gpu_fraction.domain import keys
from gpu_fraction.domain.admission import Verdict
from tests.builders.pods import pod
from tests.unit.domain.verdicts import (
    QUARTER,
    REQUEST,
    admitted,
    refusals,
    verdict,
)


@pytest.mark.parametrize("annotations", [{}, QUARTER])
def test_users_cannot_assign_cards(annotations: Mapping[str, str]) -> None:
    """The assignment says which cards a container is handed."""
    raw = pod({**annotations, keys.ASSIGNED: '{"v":1,"containers":{}}'})
    assert refusals(raw) == [
        "metadata.annotations[gpu-fraction.dev/assigned]: only gpu-fraction sets it; remove it"
    ]
    assert verdict(raw, trusted=True).operations or not annotations


def test_a_request_annotation_alone_is_forged() -> None:
    """It would say what a pod costs and gets, without asking for it."""
    assert refusals(pod({keys.REQUEST: REQUEST})) == [
        "metadata.annotations[gpu-fraction.dev/request]: only gpu-fraction sets it; remove it"
    ]
    assert verdict(pod({keys.REQUEST: REQUEST}), trusted=True) == Verdict()


@pytest.mark.parametrize("forged", [REQUEST.replace("250", "1"), REQUEST + " ", "{}", ""])
def test_a_request_annotation_must_match_the_users_annotations(forged: str) -> None:
    """Byte for byte."""
    (told,) = refusals(pod({**QUARTER, keys.REQUEST: forged}))
    assert told.startswith("metadata.annotations[gpu-fraction.dev/request]: ")
    assert "only gpu-fraction sets it; remove the value" in told


def test_a_copied_pod_is_admitted_as_it_is() -> None:
    """``kubectl get -o yaml``, a backup, another namespace: it went through here before."""
    copied = admitted(pod(QUARTER))
    assert verdict(copied).operations == []


def test_a_copied_pod_that_was_bound_carries_an_assignment() -> None:
    """Those cards are another pod's."""
    copied = admitted(pod(QUARTER))
    copied["metadata"]["annotations"][keys.ASSIGNED] = "x"
    (told,) = refusals(copied)
    assert told.startswith("metadata.annotations[gpu-fraction.dev/assigned]")


def test_a_copied_pod_with_another_share_is_refused() -> None:
    """What it was rendered to no longer fits what it asks."""
    copied = admitted(pod(QUARTER))
    copied["metadata"]["annotations"]["gpu-fraction"] = "0.5"
    told = refusals(copied)
    assert told[0].startswith("metadata.annotations[gpu-fraction.dev/request]: ")
    assert {line.partition(":")[0] for line in told[1:]} == {
        f"spec.containers[0].resources.{part}[{name}]"
        for part in ("limits", "requests")
        for name in (keys.CORE_MILLI, keys.MEMORY_MIB)
    }


@pytest.mark.parametrize("backend", ["hami", "nvidia"])
def test_a_pod_copied_from_a_cluster_with_another_stack(backend: str) -> None:
    """It carries the other stack's resources, so it is refused, not run on both."""
    copied = admitted(pod({"gpu-fraction": "1"}))
    (told,) = refusals(copied, backend)
    assert told == (
        'metadata.annotations[gpu-fraction.dev/request]: was written for the backend "native", '
        f"and the pod's backend is {backend}; create the pod from its manifest as it was before "
        "gpu-fraction"
    )
