"""The pods and claims of a namespace, as the watches show them or as a list does."""

from dataclasses import dataclass

from gpu_fraction.quota.api import QuotaApi
from gpu_fraction.quota.claims import Chosen, ClaimCache, counted
from gpu_fraction.quota.usage import Counted, PodCache


@dataclass(frozen=True, slots=True)
class Seen:
    """What is counted in one namespace.

    Attributes:
        objects: Pods, and claims that are charged themselves.
        chosen: Cards that claims of pods were given.
        pods_version: Version that the pods are current to.
        claims_version: The same of claims; empty where claims are not charged.
    """

    objects: list[Counted]
    chosen: Chosen
    pods_version: str
    claims_version: str


class Objects:
    """Everything that quotas count."""

    def __init__(self, pods: PodCache, claims: ClaimCache | None = None) -> None:
        """Put together.

        Args:
            pods: As the watch shows them.
            claims: As the watch shows them; None where they are not followed.
        """
        self._pods = pods
        self._claims = claims
        self.clock = pods.clock

    def gone(self, uid: str) -> bool:
        """True for a pod or claim that was seen and then deleted."""
        return uid in self._pods.gone

    def watched(self, namespace: str) -> Seen:
        """The namespace as the watches show it."""
        cache = self._claims
        version = cache.version() if cache and cache.charged else ""
        claims, chosen = counted(cache.within(namespace) if cache else ())
        pods = self._pods.within(namespace)
        return Seen([*pods, *claims], chosen, self._pods.version(), version)

    async def listed(self, namespace: str, api: QuotaApi) -> Seen:
        """The namespace as consistent lists show it.

        Raises:
            KubeError: a read failed.
        """
        listing = await api.list_pods(namespace)
        pods = self._pods.read(namespace, listing.items)
        if self._claims is None:
            return Seen([*pods], {}, listing.resource_version, "")
        found = await api.list_claims(namespace)
        claims, chosen = counted(found.items)
        # Claims that only lower a charge need no version: without them, it is higher.
        version = found.resource_version if self._claims.charged else ""
        return Seen([*pods, *claims], chosen, listing.resource_version, version)
