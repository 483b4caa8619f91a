"""Pods with claims: of ours by annotation, of ours by hand, and of other drivers."""

from typing import Any

import jsonpatch
import pytest

from gpu_fraction.domain import keys
from gpu_fraction.domain.admission import Rules, admit, uses_gpu
from gpu_fraction.domain.backends import BACKENDS, BackendConfig, demand
from gpu_fraction.domain.demand import ZERO, Demand
from gpu_fraction.domain.request import Refused
from gpu_fraction.domain.sizes import CardSizes
from tests.builders.pods import Raw, container, env, pod, typed

BACKEND = BACKENDS["dra"](BackendConfig())
HAND = f"gpu-fraction-250c-250m-{'0' * 32}"
NIC = {"name": "nic", "resourceClaimTemplateName": "nic"}


def claim(name: str = "mine", template: str = HAND) -> Raw:
    """A claim of the pod."""
    return {"name": name, "resourceClaimTemplateName": template}


def using(*claims: str, name: str = "main", **rest: Any) -> Raw:
    """A container that uses them."""
    return container(name, **rest) | {"resources": {"claims": [{"name": c} for c in claims]}}


def mutated(raw: Raw, backend: str = "dra") -> Raw:
    """The pod after the first call."""
    verdict = admit(typed(raw), BACKENDS[backend](BackendConfig(CardSizes(81920))), Rules())
    after: Raw = jsonpatch.JsonPatch(verdict.operations).apply(raw)
    return after


def refusals(raw: Raw, backend: str = "dra") -> list[str]:
    """Every problem."""
    with pytest.raises(Refused) as refused:
        mutated(raw, backend)
    return [str(problem) for problem in refused.value.problems]


def test_claims_of_other_drivers_pass_untouched() -> None:
    """Beside ours; the container keeps both."""
    raw = pod({"gpu-fraction": "0.25"}, using("nic"), resourceClaims=[NIC])
    after = mutated(raw)
    assert after["spec"]["resourceClaims"][0] == NIC
    [used] = after["spec"]["containers"]
    assert used["resources"]["claims"] == [{"name": "nic"}, {"name": "gpu-fraction-0"}]
    assert mutated(after) == after
    plain = pod(None, using("nic"), resourceClaims=[NIC])
    assert not uses_gpu(typed(plain))
    assert demand(typed(plain)) == ZERO
    assert mutated(plain) == plain


def test_each_container_has_a_claim_of_its_own() -> None:
    """Equal shares are claims from one template."""
    raw = pod(
        {keys.CONTAINER_PREFIX + "a": "0.25", keys.CONTAINER_PREFIX + "b": "0.25"},
        container("a"),
        container("b"),
        container("c"),
    )
    spec = mutated(raw)["spec"]
    names = [c["resourceClaimTemplateName"] for c in spec["resourceClaims"]]
    assert [c["name"] for c in spec["resourceClaims"]] == ["gpu-fraction-0", "gpu-fraction-1"]
    assert len(set(names)) == 1
    assert [c.get("resources") for c in spec["containers"]] == [
        {"claims": [{"name": "gpu-fraction-0"}]},
        {"claims": [{"name": "gpu-fraction-1"}]},
        None,
    ]


@pytest.mark.parametrize("backend", ["dra", "native"])
def test_a_claim_by_hand_beside_the_annotation_is_refused(backend: str) -> None:
    """Also of a namespace with another backend: it would be a second share."""
    raw = pod({"gpu-fraction": "0.25"}, resourceClaims=[NIC, claim()])
    assert refusals(raw, backend) == [
        (
            "spec.resourceClaims[1]: claims a GPU in addition to the GPU annotations; "
            "remove one of the two"
        )
    ]


def test_a_claim_added_after_the_first_call_is_refused() -> None:
    """By another webhook, or by its author on a pod that was rendered before."""
    after = mutated(pod({"gpu-fraction": "0.25"}))
    after["spec"]["resourceClaims"].append(claim())
    assert refusals(after) == [
        (
            "spec.resourceClaims[1]: claims a GPU in addition to the GPU annotations; "
            "remove one of the two"
        )
    ]


def test_a_claim_that_no_container_uses_costs_as_much() -> None:
    """The scheduler allocates it all the same."""
    made = typed(pod(None, resourceClaims=[NIC, claim()]))
    assert demand(made) == Demand(1, 250, 0, 250)


@pytest.mark.parametrize("by_hand", [False, True])
def test_a_share_is_one_containers_alone(by_hand: bool) -> None:
    """Its limits hold in each container by itself, so two would use twice as much."""
    name = "mine" if by_hand else "gpu-fraction-0"
    users = [using(name) if by_hand else container(), using(name, name="side")]
    given: dict[str, Any] = {"resourceClaims": [claim()]} if by_hand else {}
    raw = pod(None if by_hand else {"gpu-fraction": "0.25"}, *users, **given)
    assert sorted(refusals(raw)[0].split(": ", 1)[1].split(" use ")[0].split(", ")) == [
        "main",
        "side",
    ]
    assert refusals(raw)[0].endswith(
        "give each its own share with gpu-fraction.dev/container.<name>"
    )


def test_a_container_uses_one_claim_of_ours() -> None:
    """What tells it its share has room for one."""
    raw = pod(None, using("a", "b", "nic"), resourceClaims=[NIC, claim("a"), claim("b")])
    assert refusals(raw) == [
        (
            'spec.containers: main uses the GPU claims "a" and "b"; allowed: one, for several '
            "GPUs with gpu-fraction-num-devices"
        )
    ]


def test_a_claim_by_hand_is_judged_as_a_gpu_pod() -> None:
    """Every guard of pods that ask by annotation."""
    assert uses_gpu(typed(pod(None, resourceClaims=[claim()])))
    assert uses_gpu(
        typed(
            pod(
                None,
                container(
                    resources={"deviceclass.resource.kubernetes.io/whole.gpu-fraction.dev": "1"}
                ),
            )
        )
    )
    raw = pod(
        {keys.REQUEST: "{}"},
        using("mine", env=env(("CUDA_MPS_X", "1")), securityContext={"privileged": True}),
        nodeName="n1",
        resourceClaims=[claim()],
    )
    found = refusals(raw)
    assert [problem.split(":")[0] for problem in found] == [
        "spec.containers[0].env[0]",
        "spec.containers[0].securityContext.privileged",
        "spec.nodeName",
        "metadata.annotations[gpu-fraction.dev/request]",
    ]
    assert mutated(pod(None, using("mine"), resourceClaims=[claim()]))["spec"]["resourceClaims"]


def test_spread_is_ignored_with_a_warning_and_binpack_is_what_happens() -> None:
    """The stock scheduler compares no cards."""
    for placement, warned in (("binpack", 0), ("spread", 1), ("topology", 1)):
        raw = pod({"gpu-fraction": "0.25", keys.PLACEMENT: placement})
        warnings = admit(typed(raw), BACKEND, Rules()).warnings
        assert sum("is ignored" in text for text in warnings) == warned


def test_what_a_claim_cannot_say_is_refused() -> None:
    """More sizes than alternatives, more cards than devices, longer than an expression."""
    sizes = CardSizes(None, {f"M{i}": 10000 + i for i in range(9)})
    many = BACKENDS["dra"](BackendConfig(sizes))
    with pytest.raises(Refused, match="cards of 9 memory sizes are eligible"):
        admit(typed(pod({"gpu-memory": "8Gi"})), many, Rules())
    assert admit(typed(pod({"gpu-memory": "8Gi", keys.MODEL: "M1,M2"})), many, Rules()).operations
    wide = Rules(bounds=Rules().bounds.__class__(max_cards=64))
    with pytest.raises(Refused, match="at most 32"):
        admit(typed(pod({"gpu-fraction": "33"})), BACKEND, wide)
    long = ",".join(f"{'a-' * 30}{i}" for i in range(64))
    assert "too long for a claim" in refusals(pod({"gpu-fraction": "1", keys.MODEL: long}))[0]
