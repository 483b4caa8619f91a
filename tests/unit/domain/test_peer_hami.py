"""What HAMi's webhook and extender did on a real API server with pods rendered for it.

The recording is ``tests/data/peers/hami.json``; how it was made is in ``docs/peers.md``.
"""

import copy
import json
from pathlib import Path
from typing import Any

import jsonpatch
import pytest

from gpu_fraction.domain import models, request_annotation, sizes, user_annotations
from gpu_fraction.domain.admission import admit
from gpu_fraction.domain.backends import demand
from gpu_fraction.domain.backends.hami import Hami
from gpu_fraction.domain.demand import Demand
from gpu_fraction.domain.pod import Pod
from gpu_fraction.domain.request import Bounds
from gpu_fraction.settings.rewrite import RewriteSettings
from tests.builders.pods import Raw, pod, typed
from tests.support.reviews import rewriting

RECORDED: Raw = json.loads(
    (Path(__file__).parents[2] / "data" / "peers" / "hami.json").read_text(encoding="utf-8")
)
ROUNDS: dict[str, Raw] = {one["name"]: one for one in RECORDED["rounds"]}


def pods(*rounds: str, having: str) -> list[Any]:
    """Round and recorded pod, of those rounds and with that key."""
    return [
        pytest.param(ROUNDS[name], one, id=f"{name}: {key}")
        for name in rounds or tuple(ROUNDS)
        for key, one in ROUNDS[name]["pods"].items()
        if one.get(having) is not None
    ]


def settings(of: Raw) -> RewriteSettings:
    """Those of a round's webhook."""
    return rewriting(backend="hami", **of["settings"])


def read_by_hami(raw: Raw) -> Raw:
    """Everything of a pod that HAMi's scheduler and device plugin read."""
    holders = [*raw["spec"].get("initContainers", ()), *raw["spec"]["containers"]]
    return {
        "scheduler": raw["spec"]["schedulerName"],
        "annotations": {
            key: value
            for key, value in raw["metadata"].get("annotations", {}).items()
            if key.startswith(("nvidia.com/", "hami.io/"))
        },
        "resources": {
            one["name"]: {
                part: {k: v for k, v in amounts.items() if k.startswith("nvidia.com/")}
                for part, amounts in one.get("resources", {}).items()
            }
            for one in holders
        },
        "switches": {
            one["name"]: [v for v in one.get("env", ()) if v["name"].startswith("CUDA_")]
            for one in holders
        },
    }


def left_by_hami(one: Raw) -> Pod:
    """The pod after HAMi's webhook."""
    return typed(jsonpatch.apply_patch(copy.deepcopy(one["sent"]), one["patch"]))


def given(one: Raw) -> Demand:
    """What HAMi's annotation says that it handed out.

    An entry a container that got something, sidecars and init containers first.
    """
    total = first = Demand()
    for entry in one["allocated"].split(";"):
        for card in filter(None, entry.split(":")):
            _, _, memory_mib, percent = card.split(",")
            total += Demand(1, int(percent) * 10, int(memory_mib))
        first = first or total
    started = one["sent"]["spec"].get("initContainers", [{"restartPolicy": "Always"}])
    if started[0].get("restartPolicy") == "Always":
        return total
    # An init container has ended when the others start: HAMi counts the larger of the two.
    rest = [a - b for a, b in zip(amounts(total), amounts(first), strict=True)]
    return first.maximum(Demand(*rest))


def amounts(cost: Demand) -> tuple[int, int, int]:
    """Cards, compute and memory."""
    return cost.cards, cost.core_milli, cost.memory_mib


def charged(of: Raw, one: Raw) -> Demand:
    """What the pod is charged for, with the card sizes of the round."""
    left = left_by_hami(one)
    found = request_annotation.find(left.annotations())
    backend = settings(of).backend_for("hami")
    assert isinstance(backend, Hami)
    known: sizes.CardSizes = backend.config.card_sizes
    eligible = (
        known.eligible_mib(found.request)
        if found
        else frozenset((*known.by_model_mib.values(), *filter(None, (known.one_mib,))))
    )
    return demand(left).charged(min(eligible), max(eligible))


@pytest.mark.parametrize(("of", "one"), pods(having="asked"))
def test_what_is_rendered_is_what_hami_took(of: Raw, one: Raw) -> None:
    """The pods that its webhook passed unchanged and its extender placed."""
    rules = settings(of)
    verdict = admit(typed(one["asked"]), rules.backend_for("hami"), rules.rules)
    made = jsonpatch.apply_patch(copy.deepcopy(one["asked"]), verdict.operations)
    if verdict.request and verdict.request.models:
        # Added since the recording, because H20 got an H200.
        made["metadata"]["annotations"].pop("nvidia.com/nouse-gputype", None)
    assert read_by_hami(made) == read_by_hami(one["sent"])
    assert one["patch"] == []


@pytest.mark.parametrize(("of", "one"), pods("one size", having="allocated"))
def test_the_charge_is_what_hami_handed_out(of: Raw, one: Raw) -> None:
    """To the MiB and the percent, where all cards have one known size."""
    assert amounts(charged(of, one)) == amounts(given(one))


@pytest.mark.parametrize(("of", "one"), pods(having="allocated"))
def test_nothing_is_handed_out_that_is_not_charged(of: Raw, one: Raw) -> None:
    """Also for pods written by hand, and where the card's size is open until it is chosen."""
    cost, got = charged(of, one), given(one)
    assert cost.cards == got.cards
    assert cost.memory_mib >= got.memory_mib
    # HAMi writes 0 percent where it limits no compute; a charge remains.
    assert cost.core_milli >= max(got.core_milli, 1)


@pytest.mark.parametrize(("of", "one"), pods("written by hand", having="allocated"))
def test_pods_written_by_hand_are_charged_as_hami_reads_them(of: Raw, one: Raw) -> None:
    """Memory but for rounding a share of it up, compute where HAMi limits it."""
    cost, got = charged(of, one), given(one)
    assert cost.memory_mib - got.memory_mib < max(2, cost.cards + 1)
    if got.core_milli:
        assert cost.core_milli == got.core_milli


@pytest.mark.parametrize(("of", "one"), pods(having="charged"))
def test_the_quota_charged_the_same_on_the_api_server(of: Raw, one: Raw) -> None:
    """GPUQuota's ``status.used`` grew by this with the pod."""
    cost = charged(of, one) if one["allocated"] or one["node"] is None else Demand()
    assert one["charged"] == {
        "cards": cost.cards,
        "core_milli": cost.core_milli,
        "memory_mib": cost.memory_mib,
    }


def test_hami_takes_one_model_for_another() -> None:
    """It looks for the name anywhere in the card's: H20 got an H200, all others are right."""
    wrong = []
    for of in ROUNDS.values():
        for key, one in of["pods"].items():
            if not one.get("node") or "asked" not in one:
                continue
            asked = user_annotations.parse(typed(one["asked"]), Bounds())
            model = of["nodes"][one["node"]]["model"]
            if asked and not models.allowed(model, asked.models, asked.not_models):
                wrong.append((key, model))
    assert wrong == [("model-h20", "NVIDIA H200")]


def test_what_hami_removes_is_left_alone_here() -> None:
    """Its webhook takes away a field of a newer Kubernetes; ours names only what it adds."""
    removed = [op for patch in RECORDED["unknown_field"]["patches"].values() for op in patch]
    assert {op["op"] for op in removed} == {"remove"}
    raw = pod({"gpu-fraction": "0.25"}, volumes=[{"name": "scratch", "emptyDir": {"mode": 488}}])
    rules = rewriting(backend="hami")
    operations = admit(typed(raw), rules.backend_for("hami"), rules.rules).operations
    assert not {op["path"] for op in operations} & {op["path"] for op in removed}
    made = jsonpatch.apply_patch(copy.deepcopy(raw), operations)
    assert made["spec"]["volumes"] == raw["spec"]["volumes"]
