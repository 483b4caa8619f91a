"""Whether a pod would fit its namespace's GPUQuotas, by the webhook's own arithmetic."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from gpu_fraction.dashboard.explain.what_if import QuotaAnswer
from gpu_fraction.domain.backends import BackendConfig
from gpu_fraction.kube.client import Client
from gpu_fraction.kube.errors import KubeError, NotFoundError
from gpu_fraction.kube.resources import GPU_QUOTAS, NODES
from gpu_fraction.quota import state
from gpu_fraction.quota.charge import Charge, PodFacts, charge
from gpu_fraction.quota.cluster_cards import ClusterCards, NodeRecord
from gpu_fraction.quota.decision import Required, decide
from gpu_fraction.quota.ledger import Ledger
from gpu_fraction.quota.pods import PodRecord, facts_of, terminal
from gpu_fraction.quota.state import Quota
from gpu_fraction.quota.wire import GPUQuota

Raw = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class QuotaCheck:
    """The quotas of a namespace, and the cluster's cards, as they were read.

    Attributes:
        quotas: None where they could not be read.
        cards: The kinds of cards.
    """

    quotas: Sequence[Quota] | None
    cards: ClusterCards

    def __call__(self, new: Raw, old: Raw | None) -> QuotaAnswer:
        """Judge a new pod; what an old one has is free for it."""
        if self.quotas is None:
            return QuotaAnswer(known=False)
        try:
            facts = self._facts(_record(new))
            gone = None if old is None else _record(old)
            freed = [_freed(quota, gone, self) for quota in self.quotas]
        except msgspec.ValidationError:
            return QuotaAnswer(known=False)
        # The UID of a new pod is not known; the old one's may hold a reservation.
        outcome = decide(replace(facts, uid=""), freed, Required())
        return QuotaAnswer(
            tuple(one.message for one in outcome.refusals),
            tuple(one.message for one in (*outcome.warnings, *outcome.notes)),
            known=not outcome.uncounted,
        )

    def _facts(self, record: PodRecord) -> PodFacts:
        facts = facts_of(record, self.cards.stacks)
        return facts.on(self.cards.cards_for(record, facts))

    def charge(self, record: PodRecord, quota: Quota) -> Charge:
        """What a pod costs a quota."""
        return charge(self._facts(record), quota.spec.models)


def _record(raw: Raw) -> PodRecord:
    return msgspec.convert(raw, PodRecord)


def _freed(quota: Quota, gone: PodRecord | None, check: QuotaCheck) -> Quota:
    """The quota as if a pod were gone."""
    ledger = quota.ledger
    counts = gone is not None and quota.spec.matches(gone.spec.priority_class_name)
    if ledger is None or gone is None or not counts or terminal(gone):
        return quota
    uid, used = gone.metadata.uid, ledger.used
    if uid not in ledger.reserved:
        cost = check.charge(gone, quota).amounts
        used = {key: max(0, amount - cost.get(key, 0)) for key, amount in used.items()}
    left = {key: one for key, one in ledger.reserved.items() if key != uid}
    return replace(quota, ledger=Ledger(used, left))


async def read(
    client: Client, namespace: str, costs: BackendConfig, *, timeout_s: float
) -> QuotaCheck:
    """Read the quotas of a namespace and the cards of the cluster.

    Args:
        client: The connection.
        namespace: The pod's.
        costs: The configured GPUs, and the stacks' own settings.
        timeout_s: Seconds for each request.
    """
    cards = ClusterCards(costs)
    try:
        for node in (await client.list(NODES.at(), NodeRecord, timeout_s=timeout_s)).items:
            cards.change(None, node)
    except KubeError:
        pass  # The sizes of cards are then those that are configured.
    try:
        found = await client.list(
            GPU_QUOTAS.at(namespace=namespace), GPUQuota, timeout_s=timeout_s
        )
    except NotFoundError:
        return QuotaCheck((), cards)
    except KubeError:
        return QuotaCheck(None, cards)
    return QuotaCheck([state.read(one) for one in found.items], cards)
