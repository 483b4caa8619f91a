"""What KAI-Scheduler did on a real API server with the pods that it takes, and with ours.

The recording is ``tests/data/peers/kai.json``; how it was made is in ``docs/peers.md``.
"""

import copy
import json
from pathlib import Path
from typing import Any

import jsonpatch
import pytest

from gpu_fraction.domain import keys
from gpu_fraction.domain.admission import admit
from gpu_fraction.domain.backends import BACKENDS, STACKS, demand
from gpu_fraction.domain.pod import containers
from gpu_fraction.domain.request import Bounds, Refused
from gpu_fraction.domain.user_annotations import asks, parse
from tests.builders.pods import Raw, typed
from tests.support.reviews import rewriting

RECORDED: Raw = json.loads(
    (Path(__file__).parents[2] / "data" / "peers" / "kai.json").read_text(encoding="utf-8")
)
CARD_MIB: int = RECORDED["card_mib"]
COUNTED_MIB = CARD_MIB - CARD_MIB % 100
"""KAI rounds a card's memory down to hundreds (its pkg/scheduler/api/node_info)."""

WIDER_HERE = {"fraction-one", "fraction-two", "memory-quantity", "both", "percent"}
"""What KAI refuses and this project takes: whole cards, units, two amounts, percent."""

WIDER_THERE = {"name-alone", "own-visible-devices", "hami-beside", "container-name-init"}
"""What KAI takes and this project refuses: a companion without a share, cards of the user's own
choice (KAI replaces the variable), another stack's resource, a share for an init container."""

needs_backend = pytest.mark.skipif("kai" not in BACKENDS, reason="there is no backend kai")


def forms(*, refused: bool) -> list[Any]:
    """The pods that KAI's webhooks were asked about."""
    return [
        pytest.param(key, one, id=key)
        for key, one in RECORDED["forms"].items()
        if ("refused" in one) == refused
    ]


PLACED = [pytest.param(one, id=key) for key, one in RECORDED["placed"].items()]
TOLD = [case for case in PLACED if case.values[0].get("received", {}).get("portion") != "0.00"]
"""Without the share so small that KAI tells the container none of a card."""


def takes(raw: Raw) -> bool:
    """Whether the same pod, without KAI's scheduler, is admitted here."""
    mine = copy.deepcopy(raw)
    mine["spec"]["schedulerName"] = "default-scheduler"
    rules = rewriting()
    try:
        admit(typed(mine), rules.backend_for("native"), rules.rules)
    except Refused:
        return False
    return True


def read_by_kai(raw: Raw) -> Raw:
    """Everything of a pod by which KAI gives it cards."""
    annotations = raw["metadata"].get("annotations", {})
    share = {
        key: annotations[key]
        for key in (keys.FRACTION, keys.MEMORY, keys.NUM_DEVICES)
        if key in annotations
    }
    first = raw["spec"]["containers"][0]["name"]
    return {
        "scheduler": raw["spec"]["schedulerName"],
        "queue": raw["metadata"].get("labels", {}).get("kai.scheduler/queue"),
        "share": share,
        "container": annotations.get(keys.CONTAINER_NAME, first) if share else None,
        "cards": {
            at.container.name: at.container.resources.of("nvidia.com/gpu")
            for at in containers(typed(raw))
            if at.container.resources is not None
        },
    }


@pytest.mark.parametrize(("key", "one"), forms(refused=False))
def test_pods_of_kais_users_pass_before_and_after_its_webhook(key: str, one: Raw) -> None:
    """They are left alone, and so are the cards that KAI's webhook has them told."""
    rules = rewriting()
    changed = jsonpatch.apply_patch(copy.deepcopy(one["sent"]), one["patch"])
    for raw in (changed, *([] if key == "own-visible-devices" else [one["sent"]])):
        assert raw["spec"]["schedulerName"] == STACKS["kai"].scheduler
        assert admit(typed(raw), rules.backend_for("native"), rules.rules).operations == []


@pytest.mark.parametrize(("key", "one"), forms(refused=True))
def test_what_kai_refuses(key: str, one: Raw) -> None:
    """It is refused here too, but for what this project means to take."""
    # The pod without a name: KAI makes a ConfigMap's name of it, which the API server refuses.
    wider = WIDER_HERE | {"generate-name"}
    assert takes(one["sent"]) == (key in wider)


def test_what_kai_takes_and_is_refused_here() -> None:
    """All else that KAI takes is taken."""
    refused = {
        key
        for key, one in RECORDED["forms"].items()
        if "refused" not in one
        and asks(one["sent"]["metadata"].get("annotations", {}))
        and not takes(one["sent"])
    }
    assert refused == WIDER_THERE


@pytest.mark.parametrize("one", PLACED)
def test_the_form_that_kai_took_still_says_what_the_user_asked(one: Raw) -> None:
    """Rendered for KAI and read back, the request is the same."""
    asked, stored = (parse(typed(one[part]), Bounds()) for part in ("asked", "stored"))
    assert asked is not None
    assert asked == stored


@needs_backend
@pytest.mark.parametrize("one", TOLD)
def test_what_is_rendered_is_what_kai_took(one: Raw) -> None:
    """The pods that its webhooks passed and its scheduler and binder placed."""
    rules = rewriting(backend="kai")
    verdict = admit(typed(one["asked"]), rules.backend_for("kai"), rules.rules)
    made = jsonpatch.apply_patch(copy.deepcopy(one["asked"]), verdict.operations)
    assert read_by_kai(made) == read_by_kai(one["stored"])


@needs_backend
@pytest.mark.parametrize("one", TOLD)
def test_the_charge_covers_what_kai_handed_out(one: Raw) -> None:
    """It counts MiB, or thousandths of a card, on each card; whole cards are whole."""
    asked = parse(typed(one["asked"]), Bounds())
    assert asked is not None
    (part,) = asked.slices
    cost = demand(typed(one["stored"])).charged(CARD_MIB, CARD_MIB)
    share_mib = (part.memory_milli or 0) * COUNTED_MIB // 1000
    assert cost.cards == part.cards
    assert cost.memory_mib >= part.cards * (part.memory_mib or share_mib)
    assert cost.memory_mib - part.cards * (part.memory_mib or share_mib) <= part.cards * 101
