"""The GPU pods of every namespace as the watch shows them, and their usage."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from gpu_fraction.domain import amounts
from gpu_fraction.domain.amounts import Amounts
from gpu_fraction.domain.backends import STACKS, Stacks
from gpu_fraction.quota.charge import NOTHING, Charge, PodFacts, charge
from gpu_fraction.quota.cluster_cards import ClusterCards
from gpu_fraction.quota.gone import Gone
from gpu_fraction.quota.pods import PodRecord, facts_of, overdue_after_s, terminal, trued_down
from gpu_fraction.quota.spec import QuotaSpec

NONE_CHOSEN: Final[Mapping[str, int]] = {}


class Counted(Protocol):
    """A pod, or a claim that is charged itself."""

    @property
    def uid(self) -> str:
        """Its uid."""

    @property
    def facts(self) -> PodFacts:
        """Its facts before its GPUs are known."""

    @property
    def overdue_at_s(self) -> float | None:
        """Steady time from which it no longer counts; None while it is not being deleted."""

    def counts(self, now_s: float, /) -> bool:
        """True while it uses, or may still use, its reservation."""

    def charge(
        self, models: tuple[str, ...], cluster: ClusterCards, chosen: Mapping[str, int], /
    ) -> Charge:
        """Its charge; ``chosen`` are the sizes of cards that its claims were given."""


@dataclass(slots=True)
class CountedPod:
    """One pod and its last computed charge.

    Attributes:
        record: The pod.
        facts: Its facts before its GPUs are known.
        deleting_since_s: Steady time when its deletion was first seen.
    """

    record: PodRecord
    facts: PodFacts
    deleting_since_s: float | None = None
    _charge: Charge = NOTHING
    _charged_for: tuple[tuple[str, ...], int, Mapping[str, int]] | None = None

    @property
    def uid(self) -> str:
        """The pod's uid."""
        return self.record.metadata.uid

    @property
    def overdue_at_s(self) -> float | None:
        """Steady time from which it no longer counts; None while it is not being deleted."""
        if self.deleting_since_s is None:
            return None
        after_s = overdue_after_s(self.record)
        return None if after_s is None else self.deleting_since_s + after_s

    def counts(self, now_s: float) -> bool:
        """True while it uses, or may still use, its reservation."""
        overdue_at_s = self.overdue_at_s
        return not terminal(self.record) and (overdue_at_s is None or now_s <= overdue_at_s)

    def charge(
        self,
        models: tuple[str, ...],
        cluster: ClusterCards,
        chosen: Mapping[str, int] = NONE_CHOSEN,
    ) -> Charge:
        """Its charge; computed again only if something changed that it depends on."""
        key = (models, cluster.version, chosen)
        if self._charged_for != key:
            facts = trued_down(self.facts, self.record, chosen) if chosen else self.facts
            if models or not facts.demand.exact:
                facts = facts.on(cluster.cards_for(self.record, facts))
            self._charge, self._charged_for = charge(facts, models), key
        return self._charge


@dataclass(frozen=True, slots=True)
class Usage:
    """The sum over the pods that one quota counts.

    Attributes:
        used: Amounts by key.
        unknown: Keys with an unknown amount of some pod.
        next_change_s: Steady time when the next deleted pod stops counting.
        by_name: Charges of the pods with the given names.
    """

    used: dict[str, int] = field(default_factory=dict)
    unknown: frozenset[str] = frozenset()
    next_change_s: float | None = None
    by_name: dict[str, Amounts] = field(default_factory=dict)


def count(
    spec: QuotaSpec,
    objects: Iterable[Counted],
    cluster: ClusterCards,
    now_s: float,
    names: Collection[str] = (),
    chosen: Mapping[str, Mapping[str, int]] | None = None,
) -> Usage:
    """Sum up what the specification selects.

    Args:
        spec: The quota's.
        objects: Pods and claims.
        cluster: The cluster's GPUs.
        now_s: Steady seconds.
        names: Objects whose charges are listed by name as well.
        chosen: MiB of the cards that claims were given, by the pod's uid and the claim's name.
    """
    chosen = chosen or {}
    models = spec.models
    used = dict.fromkeys(amounts.KEYS, 0)
    used |= {amounts.model_key(m, kind): 0 for m in models for kind in amounts.MODEL_KEYS}
    unknown: set[str] = set()
    changes = []
    by_name = {}
    for one in objects:
        if not one.counts(now_s) or not spec.matches(one.facts.priority_class):
            continue
        cost = one.charge(models, cluster, chosen.get(one.uid, NONE_CHOSEN))
        for key, amount in cost.amounts.items():
            used[key] += amount
        if (name := one.facts.name) in names:
            by_name[name] = cost.amounts
        unknown |= cost.unknown
        if (overdue_at_s := one.overdue_at_s) is not None:
            changes.append(overdue_at_s)
    return Usage(used, frozenset(unknown), min(changes, default=None), by_name)


class PodCache:
    """GPU pods by namespace."""

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        version: Callable[[], str],
        gone: Gone,
        stacks: Stacks = STACKS,
    ) -> None:
        """No pods yet.

        Args:
            clock: Steady seconds.
            version: The resource version that the pods are current to.
            gone: Takes the uids of deleted pods.
            stacks: Every GPU-sharing stack with the cluster's settings.
        """
        self.clock = clock
        self.version = version
        self.gone = gone
        self._stacks = stacks
        self._namespaces: dict[str, dict[str, CountedPod]] = {}

    def change(self, old: PodRecord | None, new: PodRecord | None) -> bool:
        """Take over a change; returns True for a GPU pod."""
        if new is None:
            return old is not None and self._remove(old)
        namespace, uid = new.metadata.namespace, new.metadata.uid
        counted = self._counted(new, self._namespaces.get(namespace, {}).get(uid))
        if not counted.facts.demand:
            return False
        self._namespaces.setdefault(namespace, {})[uid] = counted
        return True

    def _remove(self, old: PodRecord) -> bool:
        namespace, uid = old.metadata.namespace, old.metadata.uid
        pods = self._namespaces.get(namespace, {})
        if pods.pop(uid, None) is None:
            return False
        if not pods:
            del self._namespaces[namespace]
        self.gone.add(uid)
        return True

    def _counted(self, record: PodRecord, known: CountedPod | None) -> CountedPod:
        since_s = known.deleting_since_s if known else None
        if since_s is None and record.metadata.deletion_timestamp is not None:
            since_s = self.clock()
        # Most changes are of the status.
        same = known is not None and (
            (known.record.spec, known.record.metadata.annotations, known.record.metadata.labels)
            == (record.spec, record.metadata.annotations, record.metadata.labels)
        )
        facts = known.facts if known and same else facts_of(record, self._stacks)
        return CountedPod(record, facts, since_s)

    def within(self, namespace: str) -> Collection[CountedPod]:
        """The namespace's pods."""
        return self._namespaces.get(namespace, {}).values()

    def read(self, namespace: str, records: Iterable[PodRecord]) -> Iterator[CountedPod]:
        """The pods of a list, combined with the state that the watch has of them."""
        known = self._namespaces.get(namespace, {})
        for record in records:
            here = known.get(record.metadata.uid)
            same = here is not None and (
                here.record.metadata.resource_version == record.metadata.resource_version
            )
            yield here if here is not None and same else self._counted(record, here)
