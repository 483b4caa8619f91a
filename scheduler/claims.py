"""Who holds which cards, as far as we know: the extender's ledger.

A claim begins when a Binding is about to be sent and is only given up on proof: the API
server refused the Binding, or a read that reflects every finished write shows that the pod is
gone or somewhere else. Time alone proves nothing, because a watch may lag for any time.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Protocol

from gpu_fraction.domain.assignment import Assignment


class Stage(Enum):
    """How much is known of a claim."""

    SENT = "sent"
    """A Binding is on its way, or its answer never came."""
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
        stage: How much is known.
        since_s: Clock reading of the last step before the watch took over.
        in_doubt: True once a Binding's answer was lost: it may still take effect.
        priority_class: The pod's priority class; empty for none.
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


class ClaimListener(Protocol):
    """Told of every change, after it was made."""

    def put(self, claim: Claim) -> None:
        """A claim was made or changed."""
        ...

    def drop(self, claim: Claim) -> None:
        """A claim was given up."""
        ...


class Claims:
    """All claims, by pod and by node. A pod holds one on each node it may be bound to."""

    def __init__(self, listener: ClaimListener) -> None:
        """No claims.

        Args:
            listener: Keeps sums over the claims.
        """
        self._listener = listener
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

    def of_node(self, node: str) -> Iterable[Claim]:
        """Every pod's claim on the node."""
        return self._by_node.get(node, {}).values()

    def __iter__(self) -> Iterator[Claim]:
        for claims in self._by_pod.values():
            yield from claims.values()

    def unseen(self) -> list[Claim]:
        """Claims that the watch does not show yet, oldest step first."""
        return sorted(self._unseen.values(), key=lambda claim: claim.since_s)

    def put(self, claim: Claim) -> None:
        """Keep the claim in place of the pod's earlier one on the node."""
        self._by_pod.setdefault(claim.uid, {})[claim.node] = claim
        self._by_node.setdefault(claim.node, {})[claim.uid] = claim
        if claim.stage is Stage.SEEN:
            self._unseen.pop((claim.uid, claim.node), None)
        else:
            self._unseen[claim.uid, claim.node] = claim
        self._listener.put(claim)

    def drop(self, uid: str, node: str) -> bool:
        """Give the claim up; False where there is none."""
        claim = self._by_pod.get(uid, {}).pop(node, None)
        if claim is None:
            return False
        if not self._by_pod[uid]:
            del self._by_pod[uid]
        del self._by_node[node][uid]
        if not self._by_node[node]:
            del self._by_node[node]
        self._unseen.pop((uid, node), None)
        self._listener.drop(claim)
        return True

    def change(self, claim: Claim, **fields: Any) -> None:
        """Record a step of the claim's life."""
        self.put(replace(claim, **fields))
