"""Claims: the cards that each pod holds, or may hold, on a node.

A claim begins before a Binding is sent and ends by proof only: the API server refused the
Binding, or a read that reflects every finished write shows that the pod is gone or on another
node. Time alone proves nothing, because a watch can lag for any time.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import Enum
from itertools import chain

from gpu_fraction.domain.assignment import Assignment, CardShare


class Stage(Enum):
    """How much is known about a claim."""

    SENT = "sent"
    """A Binding was sent; its answer is open or lost."""
    BOUND = "bound"
    """The API server accepted the Binding; the watch does not show it yet."""
    SEEN = "seen"
    """The watch shows the pod on the node."""


@dataclass(frozen=True, slots=True)
class Claim:
    """One pod's cards on one node.

    Attributes:
        uid: The pod.
        namespace: Its namespace.
        name: Its name.
        node: The node.
        assignment: Container to its cards.
        stage: How much is known about it.
        since_s: Clock reading of its last change before the watch showed the pod, in seconds.
        in_doubt: True after an answer to a Binding was lost: it can still take effect.
        priority_class: The pod's priority class; empty for none.
        models: Product name of each share's card, in the order of ``shares``.
    """

    uid: str
    namespace: str
    name: str
    node: str
    assignment: Assignment
    stage: Stage
    since_s: float = 0.0
    in_doubt: bool = False
    priority_class: str = ""
    models: tuple[str, ...] = ()

    def shares(self) -> Iterator[CardShare]:
        """The shares of all containers."""
        return chain.from_iterable(self.assignment.values())


class Claims:
    """All claims, by pod and by node. A pod has one on each node that it may be bound to."""

    def __init__(self) -> None:
        self._by_pod: dict[str, dict[str, Claim]] = {}
        self._by_node: dict[str, dict[str, Claim]] = {}
        self._unseen: dict[tuple[str, str], Claim] = {}

    def get(self, uid: str, node: str) -> Claim | None:
        """The pod's claim on the node."""
        return self._by_pod.get(uid, {}).get(node)

    def of_pod(self, uid: str) -> list[Claim]:
        """The pod's claims on all nodes."""
        return list(self._by_pod.get(uid, {}).values())

    def bound_to(self, uid: str) -> str:
        """The node that the pod is proven to be bound to; empty where none is."""
        proven = (claim for claim in self.of_pod(uid) if claim.stage is not Stage.SENT)
        return next((claim.node for claim in proven), "")

    def of_node(self, node: str) -> Collection[Claim]:
        """The claims of all pods on the node."""
        return self._by_node.get(node, {}).values()

    def __iter__(self) -> Iterator[Claim]:
        for claims in self._by_pod.values():
            yield from claims.values()

    def unseen(self) -> list[Claim]:
        """Claims that the watch does not show yet, oldest change first."""
        return sorted(self._unseen.values(), key=lambda claim: claim.since_s)

    def due(self, now_s: float, age_s: float) -> list[Claim]:
        """Claims that the watch has not shown for so long that they need a read."""
        return [
            claim
            for claim in self.unseen()
            if claim.since_s <= now_s - age_s and (claim.in_doubt or claim.stage is Stage.BOUND)
        ]

    def put(self, claim: Claim) -> None:
        """Add the claim, or replace the pod's claim on the node."""
        self._by_pod.setdefault(claim.uid, {})[claim.node] = claim
        self._by_node.setdefault(claim.node, {})[claim.uid] = claim
        if claim.stage is Stage.SEEN:
            self._unseen.pop((claim.uid, claim.node), None)
        else:
            self._unseen[claim.uid, claim.node] = claim

    def drop(self, uid: str, node: str) -> bool:
        """End the claim; False where there is none."""
        claim = self._by_pod.get(uid, {}).pop(node, None)
        if claim is None:
            return False
        if not self._by_pod[uid]:
            del self._by_pod[uid]
        del self._by_node[node][uid]
        if not self._by_node[node]:
            del self._by_node[node]
        self._unseen.pop((uid, node), None)
        return True
