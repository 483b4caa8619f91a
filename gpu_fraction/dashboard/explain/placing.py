"""Why no card of any node serves a pod: step 5, for the stacks whose cards the objects show."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from gpu_fraction.dashboard.cards import total
from gpu_fraction.dashboard.explain import nodes
from gpu_fraction.dashboard.explain.causes import Finding, found
from gpu_fraction.dashboard.explain.facts import DRA, Evidence, Facts
from gpu_fraction.dashboard.explain.nodes import NodeVerdict
from gpu_fraction.dashboard.explain.waiting import PLACED_HERE, last_word, messages, waits
from gpu_fraction.domain import keys
from gpu_fraction.domain.claim_template import claims_of
from gpu_fraction.domain.placement import Why
from gpu_fraction.domain.units import MILLI, format_milli

MAX_NODES: Final = 8
"""Nodes named in one finding; chosen, a screen has room for no more."""

_CLAIMS: Final = "cannot allocate all claims"
"""Source: kube-scheduler's plugin DynamicResources (run on 1.37.2)."""

_SUMS: Final = "resource-short"
"""The barrier that goes with full cards."""

_WHYS: Final = {
    Why.UUID: "uuid-unknown",
    Why.MODEL: "no-node-with-model",
    Why.ISOLATION: "isolation-not-offered",
    Why.SIZE: "card-too-small",
}
"""Causes of what no card of the cluster can serve, whatever other pods do."""


def no_room(facts: Facts) -> Iterator[Finding]:
    """The cards of the cluster against what the pod asks."""
    if not waits(facts) or not facts.asks or facts.backend not in {*PLACED_HERE, ""}:
        return
    found_nodes = judged(facts)
    last = last_word(facts)
    if facts.pod.problem:
        yield found("scheduler-refuses", facts.pod.problem, *last)
        return
    roomy = [one for one in found_nodes if one.room]
    if roomy:
        yield from _unseen(facts, roomy[0])
        return
    if not any(one.node.cards for one in found_nodes):
        if not facts.snapshot.nodes.read:
            return  # what cannot be read is not guessed
        backend = facts.backend or keys.NATIVE
        told = f"no node has GPUs for backend {backend} (is the node daemon running?)"
        seen = Evidence("Nodes", f"metadata.annotations[{keys.INVENTORY}]", "absent or empty")
        yield found("daemon-down", told, seen, *_problems(found_nodes), *last)
        return
    yield from _barred(found_nodes, last)
    sick = [one for one in found_nodes if one.healed and one.placed is None and not one.barriers]
    if sick:
        yield found(
            "card-sick",
            f"the pod would fit on {_names(sick)} if its cards were well",
            *_cards(sick),
            *last,
        )
    short = [one for one in found_nodes if one.placed is None and not one.healed]
    hopeful = len(short) < len(found_nodes)
    yield from _short(facts, short, last, hopeful=hopeful)


def judged(facts: Facts) -> tuple[NodeVerdict, ...]:
    """What each node says of the pod."""
    devices = facts.snapshot.devices
    backend = facts.backend or (DRA if any(claims_of(facts.pod.pod.domain())) else keys.NATIVE)
    found_nodes = nodes.verdicts(
        facts.cluster,
        facts.pod.pod.spec,
        facts.asks,
        backend=backend,
        devices=devices.items if devices.whole else None,
    )
    # Where some nodes are of the pod's choice, the others do not matter to it.
    chosen = tuple(one for one in found_nodes if "node-selector" not in dict(one.barriers))
    return chosen or tuple(nodes.not_chosen(one) for one in found_nodes)


def _barred(found_nodes: Sequence[NodeVerdict], last: Iterable[Evidence]) -> Iterator[Finding]:
    """Nodes whose cards fit, but which take no pod now.

    Where no node takes the pod whatever becomes free, full cards are not the reason.
    """
    by_cause: dict[str, list[tuple[NodeVerdict, str]]] = {}
    nobody = all(any(name != _SUMS for name, _ in one.barriers) for one in found_nodes)
    for one in found_nodes:
        alone = one.placed is not None or not one.node.cards
        for name, why in one.barriers:
            if alone or (nobody and one.alone and name != _SUMS):
                by_cause.setdefault(name, []).append((one, why))
    for name, held in by_cause.items():
        names = _names(one for one, _ in held)
        fits = "its cards fit, but " if held[0][0].placed is not None else ""
        seen = [Evidence(f"Node {one.node.name}", _field(name), why) for one, why in held]
        yield found(name, f"{names}: {fits}{held[0][1]}", *seen[:MAX_NODES], *last)


def _field(cause: str) -> str:
    return {
        "node-tainted": "spec.taints",
        "node-cordoned": "spec.unschedulable",
        "node-not-ready": "status.conditions[Ready]",
        "node-selector": "metadata.labels",
        "resource-short": "status.allocatable",
    }.get(cause, f"metadata.annotations[{keys.INVENTORY}]")


def _short(
    facts: Facts, found_nodes: Sequence[NodeVerdict], last: Iterable[Evidence], *, hopeful: bool
) -> Iterator[Finding]:
    """No card of these nodes has what the pod asks for.

    Where another node has it, only what the end of other pods would change matters here.
    """
    with_cards = [one for one in found_nodes if one.node.cards]
    if hopeful:
        with_cards = [one for one in with_cards if one.nearest and one.nearest.why.passes]
    if not with_cards:
        return
    refusals = [(one.nearest, nodes.most_room(one.node)) for one in with_cards if one.nearest]
    ask = facts.asks[0]
    if any(one.nearest is None for one in with_cards) and ask.cards > 1:
        told = f"no node has {ask.cards} GPUs for it"
        yield found("too-few-cards", told, *_cards(with_cards), *last)
        return
    nearest, _ = max(refusals, key=lambda one: (one[0].why, one[1]), default=(None, None))
    if nearest is None:
        yield found("cards-full", "no place for all containers", *_cards(with_cards), *last)
        return
    at = [one for one in with_cards if one.nearest and one.nearest.why == nearest.why]
    if (name := _WHYS.get(nearest.why)) is not None:
        yield found(
            name, f"{_names(at)}: {nearest.text}", *_cards(at), *_there(facts, nearest.why), *last
        )
        return
    if nearest.why is Why.UNHEALTHY:
        yield found("card-sick", "every GPU is sick", *_cards(at), *last)
        return
    usable = [card for one in at if not one.barriers for card in one.node.cards]
    free_milli = total(usable).free_milli
    wanted = (ask.memory_milli or ask.core_milli or MILLI) * ask.cards
    share, where = nodes.largest_share(with_cards, facts.asks)
    most = "no share of any GPU is free"
    if where is not None:
        most = (
            f"the largest share that fits now is {format_milli(share)}, on node {where.node.name}"
        )
    pieces = free_milli >= wanted
    told = f"{nearest.text}; {most}"
    if pieces:
        told = f"{format_milli(free_milli)} GPUs are free, but on several cards; {most}"
    yield found("cards-fragmented" if pieces else "cards-full", told, *_cards(at), *last)


def _there(facts: Facts, why: Why) -> Iterator[Evidence]:
    """What the cluster has of what was asked for."""
    cards = facts.cluster.cards
    if why is Why.MODEL:
        models = ", ".join(sorted({card.card.model for card in cards}))
        yield Evidence("Nodes", f"metadata.annotations[{keys.INVENTORY}]", f"models: {models}")
    if why is Why.SIZE:
        largest = max((card.card.memory_mib for card in cards), default=0)
        yield Evidence(
            "Nodes",
            f"metadata.annotations[{keys.INVENTORY}]",
            f"the largest GPU has {largest} MiB",
        )


def _unseen(facts: Facts, verdict: NodeVerdict) -> Iterator[Finding]:
    """There is room, and the scheduler does not know."""
    said = [*messages(facts)]
    if verdict.placed is None or not said:
        return
    where = nodes.card_names(verdict.placed, verdict.node)
    free = Evidence(
        f"Node {verdict.node.name}", "claims and slices against its cards", f"room on {where}"
    )
    if not any(_CLAIMS in one.text for one in said[:1]):
        return
    at = max(one.at for one in said)
    if not facts.cluster.pods_known:
        where += " (as far as pods and claims could be read)"
    told = f"there is room on {where}; the scheduler has not looked again since {at}"
    yield found("not-looked-again", told, free, *said[:2])


def _problems(found_nodes: Iterable[NodeVerdict]) -> Sequence[Evidence]:
    return [
        Evidence(
            f"Node {one.node.name}", f"metadata.annotations[{keys.INVENTORY}]", one.node.problem
        )
        for one in found_nodes
        if one.node.problem
    ][:MAX_NODES]


def _cards(found_nodes: Iterable[NodeVerdict]) -> Sequence[Evidence]:
    return [
        Evidence(f"Node {one.node.name}", "cards", one.text) for one in found_nodes if one.text
    ][:MAX_NODES]


def _names(found_nodes: Iterable[NodeVerdict]) -> str:
    names = [one.node.name for one in found_nodes]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"node{'s' if len(names) > 1 else ''} {', '.join(names[:3])}{more}"


RULES: Final[tuple[Callable[[Facts], Iterator[Finding]], ...]] = (no_room,)
