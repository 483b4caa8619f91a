"""What HAMi's webhook and extender did on a real API server with pods rendered for it.

The recording is ``tests/data/peers/hami.json``; how it was made is in ``docs/peers.md``.
"""

import copy
import json
from pathlib import Path
from typing import Any

import jsonpatch
import msgspec
import pytest

from gpu_fraction.domain import models, user_annotations
from gpu_fraction.domain.admission import admit
from gpu_fraction.domain.amounts import CORES, GPUS, MEMORY
from gpu_fraction.domain.backends.hami import REGISTERED, Hami
from gpu_fraction.domain.demand import Demand
from gpu_fraction.domain.request import Bounds
from gpu_fraction.quota.charge import charge
from gpu_fraction.quota.cluster_cards import ClusterCards, NodeMeta, NodeRecord
from gpu_fraction.quota.pods import PodRecord, facts_of
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


def node(name: str, model: str, memory_mib: int, cards: int) -> NodeRecord:
    """A node of a round, as HAMi's device plugin registers its cards."""
    kind = model if model.startswith("NVIDIA") else f"NVIDIA-{model}"
    listed = [{"id": f"GPU-{name}-{i}", "devmem": memory_mib, "type": kind} for i in range(cards)]
    annotations = {REGISTERED: json.dumps(listed)}
    return NodeRecord(metadata=NodeMeta(name=name, annotations=annotations))


def charged(of: Raw, one: Raw, *, placed: bool = True) -> Demand:
    """What a quota charges for the pod, once it is placed or while it waits."""
    raw = jsonpatch.apply_patch(copy.deepcopy(one["sent"]), one["patch"])
    if placed and one["node"]:
        raw["spec"]["nodeName"] = one["node"]
    record = msgspec.convert(raw, PodRecord)
    backend = settings(of).backend_for("hami")
    assert isinstance(backend, Hami)
    cluster = ClusterCards(backend.config)
    for name, cards in of["nodes"].items():
        cluster.change(None, node(name, **cards))
    facts = facts_of(record)
    found = charge(facts.on(cluster.cards_for(record, facts)))
    assert not found.unknown
    return Demand(*(found.amounts.get(key, 0) for key in (GPUS, CORES, MEMORY)))


@pytest.mark.parametrize(("of", "one"), pods(having="asked"))
def test_what_is_rendered_is_what_hami_took(of: Raw, one: Raw) -> None:
    """The pods that its webhook passed unchanged and its extender placed."""
    rules = settings(of)
    verdict = admit(typed(one["asked"]), rules.backend_for("hami"), rules.rules)
    made = jsonpatch.apply_patch(copy.deepcopy(one["asked"]), verdict.operations)
    assert read_by_hami(made) == read_by_hami(one["sent"])
    assert one["patch"] == []


@pytest.mark.parametrize(("of", "one"), pods(having="allocated"))
def test_the_charge_is_what_hami_handed_out(of: Raw, one: Raw) -> None:
    """Also for pods written by hand, and whatever size is configured.

    HAMi rounds a percentage down on each card, the charge on all cards together. Where HAMi
    limits no compute it writes 0 percent; a charge remains.
    """
    cost, got = charged(of, one), given(one)
    assert cost.cards == got.cards
    assert 0 <= cost.memory_mib - got.memory_mib <= cost.cards - 1
    assert cost.core_milli > 0
    assert got.core_milli in {0, cost.core_milli}


@pytest.mark.parametrize(("of", "one"), pods(having="allocated"))
def test_nothing_is_handed_out_that_was_not_charged_at_creation(of: Raw, one: Raw) -> None:
    """While the pod waits it is charged for the most that it can get."""
    waiting = charged(of, one, placed=False)
    assert waiting.maximum(charged(of, one)) == waiting


@pytest.mark.parametrize(("of", "one"), pods(having="charged"))
def test_the_quota_charged_the_same_on_the_api_server(of: Raw, one: Raw) -> None:
    """GPUQuota's ``status.used`` grew by this with the pod."""
    cost = charged(of, one)
    assert one["charged"] == {
        "cards": cost.cards,
        "core_milli": cost.core_milli,
        "memory_mib": cost.memory_mib,
    }


def test_hami_gives_the_wanted_models_only() -> None:
    """It looks for a name anywhere in the card's: H20 waits where only an H200 has it in its."""
    for of in ROUNDS.values():
        for one in of["pods"].values():
            if "asked" not in one or one["node"] is None:
                continue
            asked = user_annotations.parse(typed(one["asked"]), Bounds())
            assert asked is not None
            model = of["nodes"][one["node"]]["model"]
            assert models.allowed(model, asked.models, asked.not_models)
    waits = ROUNDS["several sizes"]["pods"]["model-h20"]
    assert waits["node"] is None
    assert "CardTypeMismatch" in waits["failed_nodes"]["h200-a"]


def test_a_resource_quota_sees_percentages_late_or_never() -> None:
    """HAMi's waits until cards are chosen, and refuses amounts at creation.

    Kubernetes' own counts amounts alone.
    """
    recorded = RECORDED["own_quota"]
    rules = rewriting(backend="hami", **ROUNDS["one size"]["settings"])
    for one in recorded["pods"].values():
        raw = pod(one["asked"])
        verdict = admit(typed(raw), rules.backend_for("hami"), rules.rules)
        made = jsonpatch.apply_patch(raw, verdict.operations)
        limits = made["spec"]["containers"][0]["resources"]["limits"]
        assert one.get("limits", limits) == limits
    waits, refused = (recorded["pods"][key] for key in ("percent-over", "memory-over"))
    assert waits["failed_nodes"] == {"h100-a": "8/8 ResourceQuotaNotFit"}
    assert refused["refused"].endswith("denied the request: exceeding resource quota")
    assert recorded["pods"]["percent-within"]["allocated"]
    assert recorded["used"] == {"requests.nvidia.com/gpumem": "4096"}


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
