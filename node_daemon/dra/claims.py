"""What an allocated ResourceClaim gives: pure functions.

Source: resource.k8s.io/v1, ResourceClaimStatus; Kubernetes KEP-5075 (consumable capacity).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self, cast

import msgspec

from gpu_fraction.domain import dra
from gpu_fraction.domain.assignment import CardShare
from gpu_fraction.domain.inventory import Card
from gpu_fraction.domain.request import DEFAULT_ISOLATION, ISOLATIONS, Isolation
from gpu_fraction.domain.units import whole_amount
from gpu_fraction.kube.objects import Meta
from gpu_fraction.node_daemon.dra.devices import device_name
from gpu_fraction.node_daemon.state.allocation import Nonce, Token
from gpu_fraction.node_daemon.state.errors import Reason, Refusal


@dataclass(frozen=True, slots=True)
class ClaimRef:
    """A claim as the kubelet names it."""

    namespace: str
    name: str
    uid: str

    @property
    def token(self) -> Token:
        """The claim in the daemon's state."""
        return Token(f"{self.namespace}/{self.name}/{self.uid}")

    @classmethod
    def of(cls, token: Token) -> Self | None:
        """The claim of a token; None where it is a slot's."""
        parts = token.split("/")
        return cls(*parts) if len(parts) == 3 else None

    def nonce(self, request: str) -> Nonce:
        """The CDI device name of one of its requests."""
        return Nonce(f"{self.uid}-{request}")

    def __str__(self) -> str:
        return f"claim {self.namespace}/{self.name}"


class _Toleration(msgspec.Struct, frozen=True):
    key: str = ""
    operator: str = "Equal"
    effect: str = ""

    @property
    def sick(self) -> bool:
        """True where it tolerates a sick card."""
        key = self.key == dra.UNHEALTHY or (not self.key and self.operator == "Exists")
        return key and self.effect in {"", "NoSchedule"}


class Result(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """One device that the scheduler has given to a request."""

    request: str = ""
    driver: str = ""
    pool: str = ""
    device: str = ""
    admin_access: bool | None = None
    share_id: str | None = msgspec.field(default=None, name="shareID")
    consumed_capacity: dict[str, str] | None = None
    tolerations: tuple[_Toleration, ...] | None = None

    @property
    def takes_sick(self) -> bool:
        """True where the claim tolerates a sick card."""
        return any(one.sick for one in self.tolerations or ())

    def share(self, card: Card) -> CardShare:
        """The part of the card.

        Raises:
            Refusal: the claim would get all of a card that is offered in shares.
        """
        if card.parent:
            return CardShare(card.uuid, card.core_milli, card.memory_mib)
        consumed = {name: whole_amount(v) for name, v in (self.consumed_capacity or {}).items()}
        if dra.CORES not in consumed or dra.MEMORY_PPM not in consumed:
            raise Refusal(
                Reason.CLAIM_UNFIT,
                f"device {self.device} was given without {dra.CORES} and {dra.MEMORY_PPM}, which "
                "would be the whole card: the feature gate DRAConsumableCapacity of API server "
                "or scheduler is off (on by default from Kubernetes 1.36)",
            )
        memory_mib = card.memory_mib * consumed[dra.MEMORY_PPM] // dra.CARD_MEMORY_PPM
        return CardShare(card.uuid, min(consumed[dra.CORES], dra.CARD_CORES), max(1, memory_mib))


class _Opaque(msgspec.Struct, frozen=True):
    driver: str = ""
    parameters: Any = None


class _Config(msgspec.Struct, frozen=True):
    requests: tuple[str, ...] | None = None
    opaque: _Opaque | None = None


class _Devices(msgspec.Struct, frozen=True):
    results: tuple[Result, ...] | None = None
    config: tuple[_Config, ...] | None = None


class _Allocation(msgspec.Struct, frozen=True):
    devices: _Devices = _Devices()


class _Consumer(msgspec.Struct, frozen=True):
    resource: str = ""
    name: str = ""
    uid: str = ""


class _Status(msgspec.Struct, frozen=True, rename="camel"):
    allocation: _Allocation | None = None
    reserved_for: tuple[_Consumer, ...] | None = None


class _Owner(msgspec.Struct, frozen=True):
    kind: str = ""
    uid: str = ""


class _Meta(Meta, frozen=True, kw_only=True, rename="camel"):
    owner_references: tuple[_Owner, ...] | None = None


class WireClaim(msgspec.Struct, frozen=True):
    """A ResourceClaim, in the fields that the driver reads."""

    metadata: _Meta = _Meta()
    status: _Status = _Status()

    @property
    def pods(self) -> tuple[_Consumer, ...]:
        """The pods that may use it."""
        return tuple(c for c in self.status.reserved_for or () if c.resource == "pods")

    @property
    def owned(self) -> bool:
        """True where it belongs to its pod, so that no other pod can use it."""
        uids = {pod.uid for pod in self.pods}
        return any(o.kind == "Pod" and o.uid in uids for o in self.metadata.owner_references or ())


@dataclass(frozen=True, slots=True)
class Part:
    """What one request of a claim gets: devices of this driver, at least one."""

    request: str
    results: tuple[Result, ...]
    isolation: Isolation

    def shares(self, cards: Iterable[Card]) -> tuple[CardShare, ...]:
        """Its part of each card.

        Raises:
            Refusal: a card is unknown or sick, or would be given away whole.
        """
        known = {device_name(card): card for card in cards}
        return tuple(result.share(_usable(result, known)) for result in self.results)


def _usable(result: Result, known: Mapping[str, Card]) -> Card:
    card = known.get(result.device)
    if card is None:
        raise Refusal(Reason.CARD_UNKNOWN, f"this node has no device {result.device}")
    if not card.healthy and not result.takes_sick:
        why = card.health_reason or "no reason given"
        raise Refusal(Reason.CARD_UNHEALTHY, f"card {card.uuid} is not healthy: {why}")
    return card


def parts(claim: WireClaim, ref: ClaimRef) -> tuple[Part, ...]:
    """What the claim gives, by request, in the order of the allocation.

    Raises:
        Refusal: it is another claim of that name, not allocated, or asks for what the driver
            does not give.
    """
    if claim.metadata.uid != ref.uid:
        raise Refusal(
            Reason.CLAIM_UNFIT, f"{ref} now has UID {claim.metadata.uid}, expected {ref.uid}"
        )
    if claim.status.allocation is None:
        raise Refusal(Reason.CLAIM_UNFIT, f"{ref} is not allocated")
    devices = claim.status.allocation.devices
    grouped: dict[str, list[Result]] = {}
    for result in devices.results or ():
        if result.driver == dra.DRIVER:
            if result.admin_access:
                raise Refusal(
                    Reason.CLAIM_UNFIT,
                    f"{ref}: request {result.request} has adminAccess, which this driver does "
                    "not give; allowed: false",
                )
            grouped.setdefault(_base(result.request), []).append(result)
    return tuple(
        Part(request, tuple(results), _isolation(devices.config or (), results[0].request, ref))
        for request, results in grouped.items()
    )


def _base(request: str) -> str:
    """``gpu`` of ``gpu/m81920``, the alternative chosen of a prioritised list."""
    return request.partition("/")[0]


def _isolation(configs: Iterable[_Config], request: str, ref: ClaimRef) -> Isolation:
    """The last configuration wins: those of the class come first."""
    found = DEFAULT_ISOLATION
    for config in configs:
        ours = config.opaque is not None and config.opaque.driver == dra.DRIVER
        meant = not config.requests or {request, _base(request)}.intersection(config.requests)
        if ours and meant and config.opaque is not None:
            found = _read(config.opaque.parameters, ref)
    return found


def _read(parameters: Any, ref: ClaimRef) -> Isolation:
    given = parameters if isinstance(parameters, dict) else {}
    kind = (given.get("apiVersion"), given.get("kind"))
    if kind != (dra.CONFIG_VERSION, dra.CONFIG_KIND):
        raise Refusal(
            Reason.CLAIM_UNFIT,
            f"{ref}: configuration {kind[0]} {kind[1]} is unknown; allowed: "
            f"{dra.CONFIG_VERSION} {dra.CONFIG_KIND}",
        )
    isolation = given.get("isolation", DEFAULT_ISOLATION)
    if isolation not in ISOLATIONS or given.keys() - {"apiVersion", "kind", "isolation"}:
        raise Refusal(
            Reason.CLAIM_UNFIT,
            f"{ref}: configuration with isolation {isolation!r} and fields "
            f"{', '.join(sorted(given))}; allowed: isolation, one of {', '.join(ISOLATIONS)}",
        )
    return cast("Isolation", isolation)
