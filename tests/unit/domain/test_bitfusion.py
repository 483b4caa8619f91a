"""Pods that Bitfusion's webhook rewrote after ours: ``/validate`` sees them so."""

import copy

import jsonpatch
import pytest

from gpu_fraction.domain.admission import Rules, admit
from gpu_fraction.domain.backends import BACKENDS, BackendConfig, demand
from gpu_fraction.domain.request import Refused
from tests.builders.pods import Raw, pod, typed

OWN = {"bitfusion_os": "ubuntu20", "bitfusion_version": "450"}
BACKEND = BACKENDS["bitfusion"](BackendConfig(own=OWN))


def injected(annotations: dict[str, str], total: str) -> Raw:
    """The pod after both webhooks: percents over all cards in the place of the amounts."""
    raw = pod(annotations)
    operations = admit(typed(raw), BACKEND, Rules()).operations
    made: Raw = jsonpatch.JsonPatch(operations).apply(copy.deepcopy(raw))
    made["metadata"]["annotations"]["auto-management/status"] = "injected"
    amounts = {"bitfusion.io/gpu": total}
    made["spec"]["containers"][0]["resources"] = {"limits": amounts, "requests": dict(amounts)}
    return made


@pytest.mark.parametrize(
    ("annotations", "total"),
    [
        ({"gpu-fraction": "0.25"}, "25"),
        ({"gpu-fraction": "0.5", "gpu-fraction-num-devices": "2"}, "100"),
        ({"gpu-memory": "8000M"}, "50"),
    ],
)
def test_a_rewritten_pod_is_left_as_it_is(annotations: dict[str, str], total: str) -> None:
    """And charged by what Bitfusion hands out."""
    made = injected(annotations, total)
    assert admit(typed(made), BACKEND, Rules()).operations == []
    assert demand(typed(made)).core_milli == 10 * int(total)


def test_another_share_than_the_annotations_ask() -> None:
    """Is refused, whoever wrote it."""
    with pytest.raises(Refused, match='is "800", but the annotations request 25'):
        admit(typed(injected({"gpu-fraction": "0.25"}, "800")), BACKEND, Rules())


def test_a_form_that_bitfusion_did_not_write() -> None:
    """Without its mark the resource is one more request for a GPU."""
    made = injected({"gpu-fraction": "0.25"}, "25")
    del made["metadata"]["annotations"]["auto-management/status"]
    with pytest.raises(Refused, match="in addition to the GPU annotations"):
        admit(typed(made), BACKEND, Rules())
