"""Which pods are charged for limited models only once their cards are known."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from gpu_fraction.domain import assignment, inventory, keys, request_annotation
from gpu_fraction.domain.assignment import CardShare
from gpu_fraction.domain.backends import BackendConfig
from gpu_fraction.domain.request import Request, Slice
from gpu_fraction.domain.sizes import CardSizes
from gpu_fraction.quota.charge import charge
from gpu_fraction.quota.cluster_cards import ClusterCards, NodeMeta, NodeRecord
from gpu_fraction.quota.pods import PodRecord, facts_of
from tests.builders.pods import quota_pod
from tests.support.quota_world import World, quota

ANYWHERE = Request((Slice("main", 1, 500, None, 500),))
LIMITED = ("A100", "T4")
CLUSTER = ClusterCards(BackendConfig(CardSizes(None, {"A100-80GB": 81920, "T4": 15360})))


def rendered(
    request: Request = ANYWHERE,
    *,
    uid: str = "u1",
    backend: str = "native",
    scheduler: str = keys.SCHEDULER,
    assigned: str = "",
    **fields: Any,
) -> PodRecord:
    """A pod as our webhook leaves it."""
    annotations = {keys.REQUEST: request_annotation.render(request, backend)}
    if assigned:
        annotations[keys.ASSIGNED] = assigned
    record = quota_pod(uid, cores=500, annotations=annotations, **fields)
    spec = msgspec.structs.replace(record.spec, scheduler_name=scheduler)
    return msgspec.structs.replace(record, spec=spec)


def charged(record: PodRecord) -> dict[str, int]:
    """GPUs by limited model."""
    facts = facts_of(record)
    found = charge(facts.on(CLUSTER.cards_for(record, facts)), LIMITED)
    return {model: found.amounts[f"{model}.gpus"] for model in LIMITED}


def test_a_pod_that_our_scheduler_places_anywhere_is_charged_for_no_model() -> None:
    """The extender keeps to the limits where it chooses the cards; all else is charged."""
    record = rendered()
    facts = facts_of(record)
    assert facts.placed_late
    found = charge(facts.on(CLUSTER.cards_for(record, facts)), LIMITED)
    assert {key: found.amounts[key] for key in ("cores", "memory", "gpus", "pods")} == {
        "cores": 500,
        "memory": 40960,
        "gpus": 1,
        "pods": 1,
    }
    assert not any(amount for key, amount in found.amounts.items() if "." in key)
    assert not found.unknown


def test_no_model_is_charged_where_no_card_is_known_either() -> None:
    """An unknown memory stays unknown in the namespace's own key alone."""
    found = charge(facts_of(rendered()), LIMITED)
    assert found.unknown == {"memory"}


def test_naming_models_to_avoid_is_no_choice_of_one() -> None:
    """Several may be left."""
    assert charged(rendered(replace(ANYWHERE, not_models=("T4",)))) == {"A100": 0, "T4": 0}


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (rendered(replace(ANYWHERE, models=("A100",))), {"A100": 1, "T4": 0}),
        (rendered(replace(ANYWHERE, models=("A100", "T4"))), {"A100": 1, "T4": 1}),
        (rendered(replace(ANYWHERE, uuids=("GPU-0",))), {"A100": 1, "T4": 1}),
        (rendered(scheduler="default-scheduler"), {"A100": 1, "T4": 1}),
        (rendered(backend="hami"), {"A100": 1, "T4": 1}),
        (rendered(node="somewhere"), {"A100": 1, "T4": 1}),
        (rendered(assigned="not readable"), {"A100": 1, "T4": 1}),
        (quota_pod(cores=500), {"A100": 1, "T4": 1}),
        (quota_pod(gpus=1), {"A100": 1, "T4": 1}),
    ],
    ids=[
        "models",
        "several-models",
        "uuids",
        "another-scheduler",
        "another-backend",
        "made-with-a-node",
        "assigned-unreadably",
        "bare-resources",
        "whole-cards",
    ],
)
def test_every_other_pod_is_charged_for_each_model_it_may_land_on(
    record: PodRecord, expected: dict[str, int]
) -> None:
    """Nobody else looks at limits where its cards are chosen, or it has chosen itself."""
    assert not facts_of(record).placed_late
    assert charged(record) == expected


def test_once_the_cards_are_known_their_model_is_charged() -> None:
    """The Binding names node and cards in one step."""
    cluster = ClusterCards()
    cards = tuple(
        inventory.Card(uuid=f"GPU-{at}", index=at, model=model, memory_mib=mib)
        for at, (model, mib) in enumerate((("Tesla T4", 15360), ("NVIDIA A100", 81920)))
    )
    text = inventory.render(inventory.Inventory(cards=cards))
    cluster.change(
        None, NodeRecord(metadata=NodeMeta(name="n", annotations={keys.INVENTORY: text}))
    )
    chosen = assignment.render({"main": (CardShare("GPU-0", 500, 7680),)})
    record = rendered(node="n", assigned=chosen)
    facts = facts_of(record)
    found = charge(facts.on(cluster.cards_for(record, facts)), LIMITED).amounts
    assert (found["T4.gpus"], found["T4.cores"], found["T4.memory"]) == (1, 500, 7680)
    assert found["A100.gpus"] == 0


async def test_pods_that_may_go_elsewhere_are_admitted_beside_a_full_model() -> None:
    """While pods that chose the model are held to what is left of it."""
    hard = {"models": {"A100": {"gpus": 1}}}
    chose = replace(ANYWHERE, models=("A100",))
    async with World(quota(hard=hard), cluster=CLUSTER).running() as world:
        for number in range(3):
            assert (await world.create(rendered(uid=f"late{number}"))).final
        assert (await world.create(rendered(chose, uid="chose"))).final
        refused = await world.create(rendered(chose, uid="one-more"))
        assert "used: A100.gpus=0, reserved: A100.gpus=1" in refused.refusals[0].message
        await world.settle()
        used = world.status().used
        assert used is not None
        assert msgspec.to_builtins(used.models)["A100"]["gpus"] == "1"
        assert (await world.create(rendered(uid="late3"))).final
