"""The answer of ``gpu-fraction quota``."""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from gpu_fraction.cli import asking, printing, watching
from gpu_fraction.cli.asking import Asked
from gpu_fraction.cli.gaps import gap_record, gap_text
from gpu_fraction.cli.printing import Column, Listing, Style, formatted, load_colour
from gpu_fraction.cli.words import age, memory, share, short_model
from gpu_fraction.dashboard import snapshot
from gpu_fraction.dashboard.cluster import Cluster, view
from gpu_fraction.dashboard.pods import PodView
from gpu_fraction.dashboard.quotas import QuotaView, largest_share
from gpu_fraction.domain import amounts
from gpu_fraction.domain.units import MILLI
from gpu_fraction.kube.timestamps import utc_now


@dataclass(frozen=True, slots=True)
class Budget:
    """One key of a quota."""

    quota: QuotaView
    key: str

    def text(self, amount: int | None) -> str:
        """An amount of the key as a quantity."""
        return "-" if amount is None else amounts.format_amount(self.key, amount)

    @property
    def full_milli(self) -> int:
        """Thousandths of the limit that are taken; 0 without a limit."""
        return self.quota.full_milli(self.key) or 0


@dataclass(frozen=True, slots=True)
class Fit:
    """The largest share of one card that would still fit.

    Attributes:
        namespace: Whose quotas bound it.
        model: The card's product name.
        milli: Thousandths of the card.
        bound: What ends it: ``QUOTA: KEY``, or ``cards``; empty for a whole card.
    """

    namespace: str
    model: str
    milli: int
    bound: str


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Run the command; the exit code."""
    look = printing.style(args, sys.stdout, environ)
    return asking.answer(args, environ, "quota", partial(_work, args, look))


async def _work(args: argparse.Namespace, look: Style, asked: Asked) -> int:
    return await watching.show(args, partial(_answer, args, look, asked))


async def _answer(args: argparse.Namespace, look: Style, asked: Asked) -> watching.Block:
    found = await snapshot.read(
        asked.client, namespaces=(asked.namespace,), timeout_s=asked.timeout_s
    )
    cluster = view(found)
    quotas = [
        one
        for one in cluster.quotas
        if (asked.everywhere or one.namespace == asked.namespace) and args.name in {None, one.name}
    ]
    where = "any namespace" if asked.everywhere else f"namespace {asked.namespace}"
    notes = [gap_text(gap) for gap in cluster.gaps]
    if not quotas:
        absent = found.quotas.gap is not None and found.quotas.gap.why == "absent"
        missing = "; the cluster has no GPUQuotas: is gpu-fraction installed?" if absent else ""
        if found.quotas.read:
            notes.append(f"No GPUQuotas found in {where}{missing}.")
    fits = [*_fits(cluster, quotas)]
    state = [_record(one, cluster) for one in quotas]
    return watching.Block(
        _text(args.output, cluster, quotas, fits, look),
        tuple(notes) + tuple(_faults(quotas)),
        state=(state, fits),
        failed=not found.quotas.read,
    )


def _faults(quotas: Sequence[QuotaView]) -> Iterator[str]:
    for one in quotas:
        where = f"quota {one.namespace}/{one.name}"
        if not one.counted:
            yield f"{where}: not counted yet for these limits: is the controller running?"
        for problem in one.problems:
            yield f"{where}: {problem}"


def _fits(cluster: Cluster, quotas: Sequence[QuotaView]) -> Iterator[Fit]:
    for namespace in sorted({one.namespace for one in quotas}):
        for model, sums in cluster.by_model().items():
            sizes = (c.card.memory_mib for c in cluster.cards if c.card.model == model)
            allowed, bound = largest_share(
                cluster.quotas_of(namespace), model, max(sizes, default=1)
            )
            if sums.largest_milli < allowed:
                allowed, bound = sums.largest_milli, "cards"
            yield Fit(namespace, model, min(allowed, MILLI), bound)


def _text(
    output: str,
    cluster: Cluster,
    quotas: Sequence[QuotaView],
    fits: Sequence[Fit],
    look: Style,
) -> str:
    if output in {"json", "yaml", "name"}:
        listing: Listing[QuotaView] = Listing(
            "Quota", (), lambda q: _record(q, cluster), lambda q: f"gpuquota/{q.name}"
        )
        more = {"fits": [_fit_record(fit) for fit in fits]}
        gaps = {"gaps": [gap_record(gap) for gap in cluster.gaps]}
        return formatted(listing, quotas, output, look, {**more, **gaps})
    budgets = [Budget(one, key) for one in quotas for key in one.keys]
    if output == "csv":
        return formatted(_budgets(look), budgets, output, look)
    if not quotas:
        return ""
    names = {one.namespace for one in quotas}
    pods = [p for p in cluster.pods if p.namespace in names and p.state != "finished"]
    pods.sort(key=lambda pod: (pod.namespace, -_core_milli(pod), pod.name))
    blocks = [formatted(_budgets(look), budgets, output, look)]
    if pods:
        blocks.append(formatted(_users(), pods, output, look))
    if fits:
        blocks.append(formatted(_fitting(), fits, output, look))
    return "\n".join(blocks)


def _budgets(look: Style) -> Listing[Budget]:
    def full(one: Budget) -> str:
        return "-" if one.quota.hard.get(one.key) is None else look.bar(one.full_milli)

    columns: tuple[Column[Budget], ...] = (
        Column("NAMESPACE", lambda b: b.quota.namespace),
        Column("QUOTA", lambda b: b.quota.name),
        Column("RESOURCE", lambda b: b.key),
        Column("USED", lambda b: b.text(b.quota.used.get(b.key, 0))),
        Column("RESERVED", lambda b: b.text(b.quota.pending(b.key))),
        Column("HARD", lambda b: b.text(b.quota.hard.get(b.key))),
        Column("FREE", lambda b: b.text(b.quota.free(b.key))),
        Column("FULL", full, paint=lambda b: load_colour(b.full_milli)),
        Column("ENFORCEMENT", lambda b: b.quota.enforcement, wide=True),
    )
    return Listing("Budget", columns, lambda _: {}, lambda b: b.key)


def _core_milli(pod: PodView) -> int:
    return sum(one.core_milli for one in pod.slices) or pod.demand.core_milli


def _memory(pod: PodView) -> str:
    if pod.slices:
        return memory(sum(one.memory_mib for one in pod.slices))
    if pod.demand.open_memory_milli:
        return f"{share(pod.demand.open_memory_milli)} of a card"
    return memory(pod.demand.memory_mib)


def _users() -> Listing[PodView]:
    now = utc_now()
    columns: tuple[Column[PodView], ...] = (
        Column("NAMESPACE", lambda p: p.namespace),
        Column("POD", lambda p: p.name),
        Column("STATE", lambda p: p.state),
        Column("SHARE", lambda p: share(_core_milli(p)), _core_milli),
        Column("MEMORY", _memory),
        Column("GPUS", lambda p: str(len(p.slices) or p.demand.cards)),
        Column("AGE", lambda p: age(p.pod.metadata.creation_timestamp, now)),
        Column("OWNER", lambda p: p.owner or "-", wide=True),
    )
    return Listing("Pod", columns, lambda _: {}, lambda p: p.name)


def _fitting() -> Listing[Fit]:
    columns: tuple[Column[Fit], ...] = (
        Column("NAMESPACE", lambda f: f.namespace),
        Column("MODEL", lambda f: short_model(f.model)),
        Column("FITS", lambda f: share(f.milli)),
        Column("BOUND", lambda f: f.bound or "-"),
    )
    return Listing("Fit", columns, _fit_record, lambda f: f.model)


def _fit_record(fit: Fit) -> dict[str, Any]:
    return {
        "namespace": fit.namespace,
        "model": fit.model,
        "largestShareMilli": fit.milli,
        "boundBy": fit.bound,
    }


def _record(quota: QuotaView, cluster: Cluster) -> dict[str, Any]:
    return {
        "namespace": quota.namespace,
        "name": quota.name,
        "enforcement": quota.enforcement,
        "counted": quota.counted,
        "budgets": [
            {
                "resource": key,
                "used": quota.used.get(key, 0),
                "reserved": quota.pending(key),
                "hard": quota.hard.get(key),
                "free": quota.free(key),
            }
            for key in quota.keys
        ],
        "pods": [
            {
                "name": pod.name,
                "state": pod.state,
                "coreMilli": _core_milli(pod),
                "memoryMib": sum(one.memory_mib for one in pod.slices) or pod.demand.memory_mib,
                "gpus": len(pod.slices) or pod.demand.cards,
                "owner": pod.owner,
            }
            for pod in cluster.pods
            if pod.namespace == quota.namespace and pod.state != "finished"
        ],
    }
