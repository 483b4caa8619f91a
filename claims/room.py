"""Which claims would fit on the shared cards: what ResourceSlices offer, less what claims took.

Source: resource.k8s.io/v1, ResourceSlice and ResourceClaim; Kubernetes KEP-5075 (consumable
capacity). Selectors are not judged: a claim that fits may still want other cards.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from gpu_fraction.domain import dra
from gpu_fraction.domain.units import whole_amount
from gpu_fraction.kube.allocations import Allocation
from gpu_fraction.kube.objects import Meta, OwnerReference

Amounts = Mapping[str, str | int]


class _Capacity(msgspec.Struct, frozen=True):
    requests: dict[str, str | int] | None = None


class _Exactly(msgspec.Struct, frozen=True, rename="camel"):
    device_class_name: str = ""
    count: int = 1
    capacity: _Capacity | None = None


class _Request(msgspec.Struct, frozen=True, rename="camel"):
    exactly: _Exactly | None = None
    first_available: list[_Exactly] | None = None

    @property
    def entries(self) -> list[_Exactly]:
        return [self.exactly] if self.exactly else self.first_available or []


class _Requests(msgspec.Struct, frozen=True):
    requests: list[_Request] | None = None


class _ClaimSpec(msgspec.Struct, frozen=True):
    devices: _Requests = _Requests()


class _ClaimStatus(msgspec.Struct, frozen=True):
    allocation: Allocation | None = None


class _OwnedMeta(Meta, frozen=True, kw_only=True, rename="camel"):
    owner_references: list[OwnerReference] | None = None


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """A ResourceClaim: what it asks for, and what it took."""

    metadata: _OwnedMeta = _OwnedMeta()
    spec: _ClaimSpec = _ClaimSpec()
    status: _ClaimStatus = _ClaimStatus()

    @property
    def waits(self) -> bool:
        """Whether nothing was allocated to it."""
        return self.status.allocation is None

    @property
    def owners(self) -> list[str]:
        """The uids of the objects that it was made for."""
        return [owner.uid for owner in self.metadata.owner_references or ()]


class _Policy(msgspec.Struct, frozen=True):
    default: str | int | None = None


class _DeviceCapacity(msgspec.Struct, frozen=True, rename="camel"):
    value: str | int = 0
    request_policy: _Policy = _Policy()


class _Taint(msgspec.Struct, frozen=True):
    effect: str = ""


class _Device(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    name: str
    allow_multiple_allocations: bool = False
    capacity: dict[str, _DeviceCapacity] | None = None
    taints: list[_Taint] | None = None


class _Pool(msgspec.Struct, frozen=True):
    name: str = ""


class _SliceSpec(msgspec.Struct, frozen=True):
    pool: _Pool = _Pool()
    devices: list[_Device] | None = None


class Slice(msgspec.Struct, frozen=True, kw_only=True):
    """A ResourceSlice of our driver."""

    metadata: Meta = Meta()
    spec: _SliceSpec = _SliceSpec()


class _Card:
    """A shared device with what is free of it."""

    def __init__(self, device: _Device, taken: Mapping[str, int]) -> None:
        offered = device.capacity or {}
        self._free = {name: _whole(c.value) - taken.get(name, 0) for name, c in offered.items()}
        self._default = {
            name: _whole(c.value if c.request_policy.default is None else c.request_policy.default)
            for name, c in offered.items()
        }

    def holds(self, asked: Amounts) -> bool:
        """Whether it has room for one device of a claim."""
        return all(
            (_whole(asked[name]) if name in asked else self._default[name]) <= free
            for name, free in self._free.items()
        )


def fitting(claims: Iterable[Claim], slices: Iterable[Slice]) -> list[Claim]:
    """The claims without an allocation for which some cards of one pool have room.

    Takes some milliseconds for each kind of request that fits nowhere, in a cluster of hundreds of
    cards.
    """
    claims = list(claims)
    taken: dict[tuple[str, str], Counter[str]] = {}
    for claim in claims:
        allocation = claim.status.allocation or _NOTHING
        for result in allocation.devices.results or ():
            if result.driver == dra.DRIVER:
                amounts = {n: _whole(text) for n, text in (result.consumed_capacity or {}).items()}
                taken.setdefault((result.pool, result.device), Counter()).update(amounts)
    pools: dict[str, list[_Card]] = {}
    for one in slices:
        for device in one.spec.devices or ():
            if device.allow_multiple_allocations and not device.taints:
                card = _Card(device, taken.get((one.spec.pool.name, device.name), {}))
                pools.setdefault(one.spec.pool.name, []).append(card)
    waiting = [claim for claim in claims if claim.waits]
    # Claims of one template ask for the same.
    kinds = {msgspec.json.encode(claim.spec): claim.spec for claim in waiting}
    fit = {key for key, spec in kinds.items() if any(_fits(spec, c) for c in pools.values())}
    return [claim for claim in waiting if msgspec.json.encode(claim.spec) in fit]


def _fits(spec: _ClaimSpec, cards: list[_Card]) -> bool:
    requests = spec.devices.requests or ()
    return bool(requests) and all(
        any(
            sum(card.holds((entry.capacity or _NO_AMOUNTS).requests or {}) for card in cards)
            >= entry.count
            for entry in request.entries
            if entry.device_class_name in (dra.FRACTION_CLASS, dra.WHOLE_CLASS)
        )
        for request in requests
    )


def _whole(quantity: str | int) -> int:
    return whole_amount(str(quantity))


_NOTHING: Final = Allocation()
_NO_AMOUNTS: Final = _Capacity()
