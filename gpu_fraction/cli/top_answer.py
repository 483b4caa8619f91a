"""The answer of ``gpu-fraction top``."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from gpu_fraction.cli import asking, printing, watching
from gpu_fraction.cli.asking import Asked
from gpu_fraction.cli.gaps import gap_record, gap_text
from gpu_fraction.cli.printing import Column, Listing, Style, formatted, load_colour, ordered
from gpu_fraction.cli.words import memory, short_model
from gpu_fraction.dashboard import snapshot, usage
from gpu_fraction.dashboard.cards import CardView
from gpu_fraction.dashboard.cluster import Cluster, view
from gpu_fraction.dashboard.pods import Slice
from gpu_fraction.dashboard.usage import CardUse, NodeUse, SliceUse
from gpu_fraction.domain import keys
from gpu_fraction.domain.units import MIB, MILLI

SHOWN_NODES: Final = 5
"""Nodes named in one note. Chosen: the reason matters, and ``-o json`` has all."""


@dataclass(frozen=True, slots=True)
class UsedSlice:
    """A slice with its use; ``index`` is the card's number on its node, None where unknown."""

    slice: Slice
    use: SliceUse
    index: int | None

    @property
    def limit_mib(self) -> int:
        """MiB that it was given."""
        return self.slice.memory_mib

    @property
    def used_mib(self) -> int | None:
        """MiB that it holds."""
        return _mib(self.use.used_bytes)


@dataclass(frozen=True, slots=True)
class UsedCard:
    """A card with its use."""

    card: CardView
    use: CardUse

    @property
    def limit_mib(self) -> int:
        """MiB of the card."""
        return self.card.card.memory_mib

    @property
    def used_mib(self) -> int | None:
        """MiB in use."""
        return _mib(self.use.used_bytes)


Used = UsedSlice | UsedCard


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Run the command; the exit code."""
    look = printing.style(args, sys.stdout, environ)
    return asking.answer(args, environ, "top", partial(_work, args, look))


async def _work(args: argparse.Namespace, look: Style, asked: Asked) -> int:
    return await watching.show(args, partial(_answer, args, look, asked))


async def _answer(args: argparse.Namespace, look: Style, asked: Asked) -> watching.Block:
    found = await snapshot.read(
        asked.client,
        namespaces=tuple(dict.fromkeys((asked.namespace, keys.SYSTEM_NAMESPACE))),
        parts=("nodes", "pods", "claims", "devices"),
        timeout_s=asked.timeout_s,
    )
    cluster = view(found)
    shown = [
        one
        for one in (*cluster.slices, *cluster.strays)
        if asked.everywhere or args.by == "card" or one.namespace == asked.namespace
    ]
    nodes = {one.node for one in shown} if args.by == "slice" else None
    daemons = [
        pod
        for pod in usage.daemons(cluster.own_pods)
        if nodes is None or pod.spec.node_name in nodes
    ]
    fetch = usage.directly if args.direct else usage.through(asked.client)
    uses = await usage.read(daemons, fetch)
    listing, rows = (
        (_slices(look), _used_slices(cluster, shown, uses))
        if args.by == "slice"
        else (_cards(look), _used_cards(cluster, uses))
    )
    items = ordered(listing, rows, args.sort)
    wanted = nodes or {one.name for one in cluster.nodes if one.cards}
    missing = _unmeasured(wanted, uses)
    more = {
        "gaps": [gap_record(gap) for gap in cluster.gaps],
        "unmeasured": [{"nodes": sorted(found), "why": why} for why, found in missing.items()],
    }
    empty = args.output in {"table", "wide"} and not items
    where = "any namespace" if asked.everywhere else f"namespace {asked.namespace}"
    notes = [
        *map(gap_text, cluster.gaps),
        *(_unmeasured_text(why, found) for why, found in missing.items()),
    ]
    if not items and found.pods.read:
        notes.append(f"No slices found in {where}." if args.by == "slice" else "No cards found.")
    return watching.Block(
        "" if empty else formatted(listing, items, args.output, look, more),
        tuple(notes),
        state=items,
        failed=not found.pods.read,
    )


def _unmeasured(nodes: set[str], uses: Sequence[NodeUse]) -> dict[str, list[str]]:
    """The nodes whose use is missing, by reason."""
    reasons: dict[str, list[str]] = {}
    for one in uses:
        if one.problem:
            reasons.setdefault(one.problem.partition(": ")[2], []).append(one.node)
    for node in sorted(nodes - {one.node for one in uses}):
        reasons.setdefault("no running node daemon is seen there", []).append(node)
    return reasons


def _unmeasured_text(why: str, nodes: Sequence[str]) -> str:
    more = f" and {len(nodes) - SHOWN_NODES} more" if len(nodes) > SHOWN_NODES else ""
    return f"no measured use of {', '.join(nodes[:SHOWN_NODES])}{more}: {why}"


def _used_slices(cluster: Cluster, shown: Sequence[Slice], uses: Sequence[NodeUse]) -> list[Used]:
    measured = {(use.node, key): value for use in uses for key, value in use.slices.items()}
    index = {(one.node, one.card.uuid): one.card.index for one in cluster.cards}

    def use(one: Slice) -> SliceUse:
        # Containers that share a claim are measured apart.
        names = ((one.namespace, one.pod, name, one.uuid) for name in one.container.split("+"))
        parts = [found for name in names if (found := measured.get((one.node, name)))]
        used = [part.used_bytes for part in parts if part.used_bytes is not None]
        busy = [part.busy for part in parts if part.busy is not None]
        return SliceUse(None, sum(used) if used else None, min(1.0, sum(busy)) if busy else None)

    return [UsedSlice(one, use(one), index.get((one.node, one.uuid))) for one in shown]


def _used_cards(cluster: Cluster, uses: Sequence[NodeUse]) -> list[Used]:
    measured = {(use.node, uuid): value for use in uses for uuid, value in use.cards.items()}
    return [
        UsedCard(one, measured.get((one.node, one.card.uuid), CardUse())) for one in cluster.cards
    ]


def _mib(count_bytes: float | None) -> int | None:
    return None if count_bytes is None else int(count_bytes // MIB)


def _text(mib: int | None) -> str:
    return "-" if mib is None else memory(mib)


def _full_milli(one: Used) -> int:
    return (one.used_mib or 0) * MILLI // max(1, one.limit_mib)


def _memory_columns(look: Style) -> tuple[Column[Any], ...]:
    def full(one: Used) -> str:
        return "-" if one.used_mib is None else look.bar(_full_milli(one))

    return (
        Column("USED", lambda u: _text(u.used_mib), lambda u: u.used_mib or 0),
        Column("LIMIT", lambda u: memory(u.limit_mib), lambda u: u.limit_mib),
        Column("FULL", full, _full_milli, lambda u: load_colour(_full_milli(u))),
    )


def _slices(look: Style) -> Listing[Any]:
    def busy(one: UsedSlice) -> str:
        return "-" if one.use.busy is None else f"{one.use.busy:.0%}"

    columns: tuple[Column[UsedSlice], ...] = (
        Column("NAMESPACE", lambda u: u.slice.namespace),
        Column("POD", lambda u: u.slice.pod or u.slice.claim),
        Column("CONTAINER", lambda u: u.slice.container or "-"),
        Column("NODE", lambda u: u.slice.node),
        Column("GPU", lambda u: "?" if u.index is None else str(u.index)),
        *_memory_columns(look),
        Column("BUSY", busy, lambda u: u.use.busy or 0.0),
        Column("UUID", lambda u: u.slice.uuid, wide=True),
    )
    return Listing(
        "SliceUse",
        columns,
        lambda u: {
            "namespace": u.slice.namespace,
            "pod": u.slice.pod,
            "container": u.slice.container,
            "node": u.slice.node,
            "uuid": u.slice.uuid,
            "limitMib": u.limit_mib,
            "usedMib": u.used_mib,
            "busyRatio": u.use.busy,
        },
        lambda u: f"pod/{u.slice.pod}",
    )


def _cards(look: Style) -> Listing[Any]:
    def foreign(one: UsedCard) -> str:
        return _text(_mib(one.use.foreign_bytes))

    columns: tuple[Column[UsedCard], ...] = (
        Column("NODE", lambda u: u.card.node),
        Column("GPU", lambda u: str(u.card.card.index), lambda u: u.card.card.index),
        Column("MODEL", lambda u: short_model(u.card.card.model)),
        *_memory_columns(look),
        Column("FOREIGN", foreign, lambda u: u.use.foreign_bytes or 0.0),
        Column("UUID", lambda u: u.card.card.uuid, wide=True),
    )
    return Listing(
        "CardUse",
        columns,
        lambda u: {
            "node": u.card.node,
            "index": u.card.card.index,
            "uuid": u.card.card.uuid,
            "model": u.card.card.model,
            "limitMib": u.limit_mib,
            "usedMib": u.used_mib,
            "foreignMib": _mib(u.use.foreign_bytes),
        },
        lambda u: f"gpu/{u.card.card.uuid}",
    )
