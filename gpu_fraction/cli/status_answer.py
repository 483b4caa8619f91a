"""The answer of ``gpu-fraction status``."""

import argparse
import asyncio
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from gpu_fraction.cli import asking, printing, status_cards, status_tenants, watching
from gpu_fraction.cli.asking import Asked
from gpu_fraction.cli.gaps import gap_record, gap_text
from gpu_fraction.cli.printing import Listing, Style, formatted, ordered
from gpu_fraction.cli.words import age, share
from gpu_fraction.dashboard import snapshot
from gpu_fraction.dashboard.cluster import Cluster, view
from gpu_fraction.dashboard.pods import PodView, Slice
from gpu_fraction.dashboard.quotas import QuotaView
from gpu_fraction.dashboard.snapshot import Snapshot
from gpu_fraction.domain import amounts, models
from gpu_fraction.kube.objects import Identity
from gpu_fraction.kube.requests import Selection
from gpu_fraction.kube.resources import NODES, PODS
from gpu_fraction.kube.timestamps import utc_now

NEAR_MILLI: Final = 900
"""Quotas from this part of their limit on are named below the table. Source: the alert
QuotaAlmostFull of kubernetes-mixin (alerts/resource_alerts.libsonnet), 90 %."""

NO_WIDTH: Final = 1_000_000
"""Columns where there is no terminal: nothing is wrapped."""

SHOWN_WAITING: Final = 5
"""Waiting pods named below the table. Chosen: the oldest say enough; ``--by pod`` has all."""


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Run the command; the exit code."""
    look = printing.style(args, sys.stdout, environ)
    return asking.answer(args, environ, "status", partial(_work, args, look))


async def _work(args: argparse.Namespace, look: Style, asked: Asked) -> int:
    return await watching.show(args, partial(_answer, args, look, asked))


async def _answer(args: argparse.Namespace, look: Style, asked: Asked) -> watching.Block:
    found, chosen = await asyncio.gather(
        snapshot.read(asked.client, namespaces=(asked.namespace,), timeout_s=asked.timeout_s),
        _selected(args, asked),
    )
    shown = _filtered(view(found), args, asked, chosen)
    rows = _rows(shown, args.by, look)
    items = ordered(rows.listing, rows.items, args.sort)
    return watching.Block(
        _text(shown, replace(rows, items=items), args, look),
        tuple(_notes(shown)),
        state=[rows.listing.record(item) for item in items],
        failed=not _anything(found),
    )


async def _selected(args: argparse.Namespace, asked: Asked) -> frozenset[str] | None:
    """The UIDs of the nodes or pods with the wanted labels; None where none are named."""
    if not args.selector:
        return None
    resource = PODS if args.by in {"pod", "namespace"} else NODES
    namespace = "" if resource is NODES or _everywhere(args, asked) else asked.namespace
    found = await asked.client.list(
        resource.at(namespace=namespace),
        Identity,
        Selection(labels=args.selector),
        timeout_s=asked.timeout_s,
    )
    return frozenset(one.metadata.uid for one in found.items)


def _everywhere(args: argparse.Namespace, asked: Asked) -> bool:
    """Whether the rows are of all namespaces; without a flag, pods are those of one."""
    return asked.everywhere or (args.by != "pod" and not asked.named)


def _filtered(
    cluster: Cluster, args: argparse.Namespace, asked: Asked, chosen: frozenset[str] | None
) -> Cluster:
    """The cluster without what the flags leave out."""
    nodes = cluster.nodes
    if args.by in {"card", "node", "model"} and chosen is not None:
        nodes = tuple(one for one in nodes if one.node.metadata.uid in chosen)
    if args.model:
        kept = (
            replace(
                node,
                cards=tuple(c for c in node.cards if models.matches(args.model, c.card.model)),
            )
            for node in nodes
        )
        nodes = tuple(node for node in kept if node.cards)
    found = replace(cluster, nodes=nodes)
    if args.by not in {"pod", "namespace"}:
        return found
    namespace = "" if _everywhere(args, asked) else asked.namespace

    def keep(one: PodView | Slice | QuotaView) -> bool:
        uid = one.uid if isinstance(one, PodView | Slice) else None
        return namespace in {"", one.namespace} and (
            chosen is None or uid is None or uid in chosen
        )

    return _tenants(found, keep)


def _tenants(cluster: Cluster, keep: Callable[[PodView | Slice | QuotaView], bool]) -> Cluster:
    """The cluster with some of its pods, slices and quotas."""
    nodes = (
        replace(
            node,
            cards=tuple(
                replace(card, slices=tuple(filter(keep, card.slices))) for card in node.cards
            ),
        )
        for node in cluster.nodes
    )
    return replace(
        cluster,
        nodes=tuple(nodes),
        strays=tuple(filter(keep, cluster.strays)),
        pods=tuple(filter(keep, cluster.pods)),
        quotas=tuple(filter(keep, cluster.quotas)),
    )


@dataclass(frozen=True, slots=True)
class _Rows:
    listing: Listing[Any]
    items: Sequence[Any]


def _rows(cluster: Cluster, by: str, look: Style) -> _Rows:
    now = utc_now()
    if by == "card":
        nodes = {node.name: node for node in cluster.nodes}
        return _Rows(status_cards.cards(look, now, nodes), cluster.cards)
    if by == "node":
        return _Rows(status_cards.nodes(look, now), cluster.nodes)
    if by == "model":
        return _Rows(status_cards.models(look), status_cards.by_model(cluster.cards))
    if by == "namespace":
        return _Rows(status_tenants.teams(look), status_tenants.by_namespace(cluster))
    index = {(one.node, one.card.uuid): one.card.index for one in cluster.cards}
    return _Rows(status_tenants.parts(now, index), status_tenants.by_pod(cluster))


def _text(cluster: Cluster, rows: _Rows, args: argparse.Namespace, look: Style) -> str:
    items = rows.items
    if args.output not in {"table", "wide"}:
        more = {
            "complete": cluster.pods_known,
            "waiting": [f"{pod.namespace}/{pod.name}" for pod in cluster.waiting],
            "gaps": [gap_record(gap) for gap in cluster.gaps],
        }
        return formatted(rows.listing, items, args.output, look, more)
    if not items:
        return ""
    blocks = [formatted(rows.listing, items, args.output, look)]
    if args.by in {"card", "node"} and len(cluster.cards) > 1:
        sums = status_cards.models(look)
        blocks.append(formatted(sums, status_cards.by_model(cluster.cards), "table", look))
    # --watch cuts what is longer than the terminal; elsewhere a line stays one line.
    columns = shutil.get_terminal_size(fallback=(NO_WIDTH, 0)).columns
    below = [
        row
        for line in _below(cluster)
        for row in textwrap.wrap(printing.clean(line), columns, break_on_hyphens=False)
    ]
    blocks.append("".join(f"{row}\n" for row in below))
    return "\n".join(block for block in blocks if block)


def _below(cluster: Cluster) -> Iterator[str]:
    """Lines below the tables: who waits, and which quotas are nearly full."""
    now = utc_now()
    for pod in cluster.waiting[:SHOWN_WAITING]:
        since = age(pod.pod.metadata.creation_timestamp, now)
        asks = f"asks for {share(pod.demand.core_milli)} GPU" if pod.demand.core_milli else "waits"
        told = pod.problem or (pod.scheduled.message if pod.scheduled else "")
        words = " ".join(told.split()) or "no scheduler has looked at it"
        yield f"waiting: {pod.namespace}/{pod.name} {asks}, {since}: {words}"
    if (others := len(cluster.waiting) - SHOWN_WAITING) > 0:
        yield f"waiting: {others} more"
    for quota in cluster.quotas:
        for key in quota.hard:
            if (quota.full_milli(key) or 0) >= NEAR_MILLI:
                taken, limit = (
                    amounts.format_amount(key, amount)
                    for amount in (quota.taken(key), quota.hard[key])
                )
                yield f"quota {quota.namespace}/{quota.name}: {key} {taken} of {limit}"


def _notes(cluster: Cluster) -> Iterator[str]:
    """What is missing, for people."""
    for gap in cluster.gaps:
        yield gap_text(gap)
    if not cluster.pods_known and cluster.cards:
        yield "free amounts are upper bounds: pods that may not be read can hold parts of cards"
    for node in cluster.nodes:
        if node.problem:
            yield f"node {node.name}: {node.problem}"
    if cluster.strays and not any(gap.what == "nodes" for gap in cluster.gaps):
        first = cluster.strays[0]
        yield (
            f"{len(cluster.strays)} slices are of cards that no node has, for example of "
            f"{first.uuid} ({first.namespace}/{first.pod or first.claim} on {first.node})"
        )
    for one in cluster.cards:
        if one.overdrawn:
            yield f"card {one.card.uuid} of node {one.node} is given away beyond its size"
    if not cluster.cards and not cluster.gaps and not cluster.nodes:
        yield "No GPU cards found in the cluster."


def _anything(found: Snapshot) -> bool:
    """Whether something could be read."""
    return any(getattr(found, name).read for name in ("nodes", "pods", "quotas", "devices"))
