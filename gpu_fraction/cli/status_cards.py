"""Cards, nodes and models, as ``gpu-fraction status`` lists them."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any

from gpu_fraction.cli.printing import Column, Listing, Style, load_colour
from gpu_fraction.cli.words import age, age_s, memory, share, short_model
from gpu_fraction.dashboard.cards import CardView, Total, total
from gpu_fraction.dashboard.cluster import NodeView
from gpu_fraction.dashboard.pods import Slice


@dataclass(frozen=True, slots=True)
class Named:
    """Cards under a common name.

    Attributes:
        name: The model's.
        cards: Its cards.
        sums: Their sums.
    """

    name: str
    cards: tuple[CardView, ...]
    sums: Total


def cards(look: Style, now: datetime, nodes: Mapping[str, NodeView]) -> Listing[CardView]:
    """Cards, one a line."""

    def driver(view: CardView) -> str:
        found = nodes[view.node].inventory
        return (found.driver_version if found else "") or "-"

    return Listing(
        "Card",
        (
            Column("NODE", lambda v: v.node, lambda v: (v.node, v.card.index)),
            Column("GPU", lambda v: str(v.card.index), lambda v: v.card.index),
            Column("MODEL", lambda v: short_model(v.card.model)),
            Column("USED", lambda v: look.bar(_used(v)), _used, lambda v: load_colour(_used(v))),
            Column("FREE", _free, lambda v: (v.free_milli, v.state.free_memory_mib), _free_colour),
            Column("SLICES", lambda v: str(len(v.slices)), lambda v: len(v.slices)),
            Column("NAMESPACES", lambda v: ",".join(v.namespaces) or "-"),
            Column("UUID", lambda v: v.card.uuid, wide=True),
            Column("ISOLATION", lambda v: v.card.isolation, wide=True),
            Column("HEALTH", lambda v: v.closed or "ok", paint=_health_colour, wide=True),
            Column("DRIVER", driver, wide=True),
            Column(
                "AGE",
                lambda v: age(_created(nodes[v.node]), now),
                lambda v: age_s(_created(nodes[v.node]), now),
                wide=True,
            ),
        ),
        _card_record,
        lambda v: f"gpu/{v.card.uuid}",
    )


def _created(node: NodeView) -> str | None:
    return node.node.metadata.creation_timestamp


def _used(view: CardView) -> int:
    return total([view]).given_milli


def _free(view: CardView) -> str:
    if view.closed:
        return view.closed.partition(":")[0]
    return f"{share(view.free_milli)} {memory(max(0, view.state.free_memory_mib))}"


def _free_colour(view: CardView) -> str:
    return "red" if view.closed or view.overdrawn else ""


def _health_colour(view: CardView) -> str:
    return "red" if view.closed else "green"


def _card_record(view: CardView) -> Mapping[str, Any]:
    card, kind = view.card, view.state.kind
    return {
        "node": view.node,
        "index": card.index,
        "uuid": card.uuid,
        "model": card.model,
        "parent": card.parent,
        "coreMilli": _amounts(kind.core_milli, view.given_core_milli),
        "memoryMib": _amounts(kind.memory_mib, view.given_memory_mib),
        "slots": _amounts(kind.slots, kind.slots - view.state.free_slots),
        "largestFreeShareMilli": view.free_milli,
        "isolation": card.isolation,
        "healthy": card.healthy,
        "closed": view.closed,
        "slices": [slice_record(one) for one in view.slices],
    }


def _amounts(size: int, given: int) -> dict[str, int]:
    return {"total": size, "given": given, "free": size - given}


def slice_record(one: Slice) -> dict[str, Any]:
    """A slice for programs, without its card."""
    return {
        "namespace": one.namespace,
        "pod": one.pod,
        "podUid": one.uid,
        "container": one.container,
        "claim": one.claim,
        "coreMilli": one.core_milli,
        "memoryMib": one.memory_mib,
    }


def _totals(look: Style, of: Callable[[Any], Total]) -> tuple[Column[Any], ...]:
    """The columns of sums over cards."""

    def bar(item: Any) -> str:
        return look.bar(of(item).given_milli)

    def given(item: Any) -> int:
        return of(item).given_milli

    return (
        Column("GPUS", lambda i: str(of(i).cards), lambda i: of(i).cards),
        Column("USED", bar, given, lambda i: load_colour(given(i))),
        Column("FREE", lambda i: share(of(i).free_milli), lambda i: of(i).free_milli),
        Column("WHOLE", lambda i: str(of(i).whole_free), lambda i: of(i).whole_free),
        Column("LARGEST", lambda i: share(of(i).largest_milli), lambda i: of(i).largest_milli),
        Column("SLICES", lambda i: str(of(i).slices), lambda i: of(i).slices),
    )


def _total_record(sums: Total) -> dict[str, Any]:
    return {
        "gpus": sums.cards,
        "openGpus": sums.open_cards,
        "coreMilli": _amounts(sums.core_milli, sums.given_core_milli),
        "memoryMib": _amounts(sums.memory_mib, sums.given_memory_mib),
        "slices": sums.slices,
        "wholeFreeGpus": sums.whole_free,
        "freeShareMilli": sums.free_milli,
        "largestFreeShareMilli": sums.largest_milli,
        "fragmentedMilli": sums.fragmented_milli,
        "overdrawnGpus": sums.overdrawn,
    }


def nodes(look: Style, now: datetime) -> Listing[NodeView]:
    """Nodes, with the sums of their cards."""

    def models(view: NodeView) -> str:
        return ",".join(dict.fromkeys(short_model(c.card.model) for c in view.cards)) or "-"

    def state(view: NodeView) -> str:
        sick = sum(1 for card in view.cards if not card.card.healthy)
        told = (view.problem, view.closed, f"{sick} sick" if sick else "")
        return ", ".join(text for text in told if text) or "ok"

    def version(view: NodeView) -> str:
        return (view.inventory.driver_version if view.inventory else "") or "-"

    return Listing(
        "Node",
        (
            Column("NODE", lambda v: v.name),
            Column("MODEL", models),
            *_totals(look, lambda v: total(v.cards)),
            Column("STATUS", state, paint=lambda v: "" if state(v) == "ok" else "red"),
            Column("DRIVER", version, wide=True),
            Column(
                "AGE",
                lambda v: age(_created(v), now),
                lambda v: age_s(_created(v), now),
                wide=True,
            ),
        ),
        lambda v: {
            "name": v.name,
            "models": sorted({card.card.model for card in v.cards}),
            "problem": v.problem,
            "closed": v.closed,
            "driverVersion": v.inventory.driver_version if v.inventory else "",
            **_total_record(total(v.cards)),
        },
        lambda v: f"node/{v.name}",
    )


def models(look: Style) -> Listing[Named]:
    """Models, with the sums of their cards."""
    return Listing(
        "Model",
        (Column("MODEL", lambda n: short_model(n.name)), *_totals(look, lambda n: n.sums)),
        lambda n: {"name": n.name, **_total_record(n.sums)},
        lambda n: f"model/{n.name}",
    )


def by_model(found: Iterable[CardView]) -> list[Named]:
    """The cards of each model."""
    ordered = sorted(found, key=lambda view: view.card.model)
    groups = [(name, tuple(g)) for name, g in groupby(ordered, lambda view: view.card.model)]
    return [Named(name, group, total(group)) for name, group in groups]
