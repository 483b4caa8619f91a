"""ResourceClaims of our driver's classes: those that are charged, and those that lower a charge.

A claim that was made of a template of ours has a label, which only Kubernetes' own controller can
give it (deploy/claims-charge). Its pod is charged for it. Any other claim is charged itself, from
its creation until it is gone, whichever pods use it.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from gpu_fraction.domain import dra
from gpu_fraction.domain.demand import ZERO
from gpu_fraction.domain.hand_claim import ClaimSpec
from gpu_fraction.kube.allocations import Allocation
from gpu_fraction.kube.objects import OwnerReference, controller_of
from gpu_fraction.kube.requests import Selection
from gpu_fraction.quota.charge import Charge, PodFacts, charge
from gpu_fraction.quota.cluster_cards import ClusterCards
from gpu_fraction.quota.gone import Gone
from gpu_fraction.quota.pods import PodMeta

POD_CLAIM: Final = "resource.kubernetes.io/pod-claim-name"
"""Annotation: the claim's name in its pod. Source: k8s.io/api resource/v1."""

LISTED: Final = Selection(labels=f"{dra.CHARGED}={dra.LARGEST}")
"""Claims that lower the charge of their pod."""

CHARGED: Final = Selection(labels=f"{dra.CHARGED}!={dra.EXACT}")
"""Those, and all that have no such label."""

_SIZE: Final = re.compile(r"[^/]+/m([1-9]\d{0,12})", re.ASCII)
"""The chosen entry of a list in a claim of ours (``domain.claim_template``)."""

_NO_SPEC: Final = ClaimSpec()


class _Status(msgspec.Struct, frozen=True):
    allocation: Allocation | None = None


class ClaimRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A claim's identity and the fields that its charge depends on; others are dropped.

    Attributes:
        facts: What it costs, with a name that no pod has; no demand where its pod is charged.
        chosen: Pod's uid, claim's name in it, and MiB of the chosen card, where a list of ours
            has been decided.
        problems: Why its cost is not known.
    """

    metadata: PodMeta = PodMeta()
    spec: ClaimSpec = _NO_SPEC
    status: _Status | None = None
    facts: PodFacts = PodFacts("")
    chosen: tuple[str, str, int] | None = None
    problems: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        meta = self.metadata
        given = (meta.labels or {}).get(dra.CHARGED)
        demand = self.spec.demand if given is None else ZERO
        chosen = self._chosen() if given == dra.LARGEST else None
        bare = msgspec.structs.replace(meta, annotations=None, labels=None)
        msgspec.structs.force_setattr(self, "metadata", bare)
        msgspec.structs.force_setattr(self, "status", None)
        problems = tuple(self.spec.problems()) if demand else ()
        msgspec.structs.force_setattr(self, "problems", problems)
        msgspec.structs.force_setattr(self, "spec", _NO_SPEC)
        facts = PodFacts(meta.uid, f"claim/{meta.name}", demand, containers=("the claim",))
        msgspec.structs.force_setattr(self, "facts", facts)
        msgspec.structs.force_setattr(self, "chosen", chosen)

    def _chosen(self) -> tuple[str, str, int] | None:
        name = (self.metadata.annotations or {}).get(POD_CLAIM)
        pod = self.owner.uid if self.owner else ""
        allocation = self.status and self.status.allocation
        for result in (allocation and allocation.devices.results) or ():
            match = _SIZE.fullmatch(result.request) if result.driver == dra.DRIVER else None
            if match and name and pod:
                return pod, name, int(match[1])
        return None

    @property
    def owner(self) -> OwnerReference | None:
        """The pod that it was made for, where it was made of a template."""
        return controller_of(self.metadata.owner_references)


@dataclass(frozen=True, slots=True)
class CountedClaim:
    """A claim that is charged itself; it counts until it is gone."""

    facts: PodFacts
    overdue_at_s: float | None = None

    @property
    def uid(self) -> str:
        """The claim's uid."""
        return self.facts.uid

    def counts(self, _now_s: float) -> bool:
        """Always: its cards may be in use."""
        return True

    def charge(
        self, models: tuple[str, ...], cluster: ClusterCards, _chosen: Mapping[str, int]
    ) -> Charge:
        """On the most expensive cards of the cluster: it may be given others than it has now."""
        return charge(self.facts.on(cluster.eligible(self.facts)), models)


Chosen = Mapping[str, Mapping[str, int]]
"""MiB of the chosen card by the pod's uid and the claim's name in the pod."""


def counted(records: Iterable[ClaimRecord]) -> tuple[list[CountedClaim], Chosen]:
    """The claims that are charged themselves, and the choices that lower their pods' charges."""
    charged: list[CountedClaim] = []
    chosen: dict[str, dict[str, int]] = {}
    for record in records:
        if record.facts.demand:
            charged.append(CountedClaim(record.facts))
        elif record.chosen is not None:
            pod, name, size_mib = record.chosen
            chosen.setdefault(pod, {})[name] = size_mib
    return charged, chosen


class ClaimCache:
    """The claims of every namespace that matter, and for a while the uids of deleted ones."""

    def __init__(self, gone: Gone, version: Callable[[], str], *, charged: bool) -> None:
        """No claims yet.

        Args:
            gone: Takes the uids of deleted claims.
            version: The resource version that the claims are current to.
            charged: Whether every claim is followed, and not only those that lower a charge.
        """
        self.version = version
        self.charged = charged
        self._gone = gone
        self._namespaces: dict[str, dict[str, ClaimRecord]] = {}

    def change(self, old: ClaimRecord | None, new: ClaimRecord | None) -> bool:
        """Take over a change; returns True where a charge may have changed."""
        record = new or old
        if record is None:
            return False
        namespace, uid = record.metadata.namespace, record.metadata.uid
        claims = self._namespaces.setdefault(namespace, {})
        before = claims.pop(uid, None)
        if new is not None and (new.facts.demand or new.chosen):
            claims[uid] = new
        elif new is None and before is not None and before.facts.demand:
            self._gone.add(uid)
        if not claims:
            del self._namespaces[namespace]
        after = claims.get(uid)
        return (before and (before.facts, before.chosen)) != (
            after and (after.facts, after.chosen)
        )

    def within(self, namespace: str) -> Iterable[ClaimRecord]:
        """The namespace's claims that matter."""
        return self._namespaces.get(namespace, {}).values()
