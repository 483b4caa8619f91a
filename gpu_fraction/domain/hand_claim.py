"""What a ResourceClaim that somebody wrote takes of the cards of our driver.

Source of the fields and their defaults: k8s.io/api resource/v1, DeviceRequest.
"""

from collections.abc import Iterator
from decimal import ROUND_CEILING
from typing import Final

import msgspec

from gpu_fraction.domain import dra, units
from gpu_fraction.domain.demand import ZERO, Demand

EXACT_COUNT: Final = "ExactCount"


class _Capacity(msgspec.Struct, frozen=True):
    requests: dict[str, str | int] | None = None


class _Devices(msgspec.Struct, frozen=True, rename="camel"):
    """Devices of one class: an exact request, or one entry of a list."""

    device_class_name: str = ""
    allocation_mode: str | None = None
    count: int | None = None
    capacity: _Capacity | None = None

    @property
    def ours(self) -> bool:
        """Whether the class is one of our driver's."""
        return self.device_class_name.endswith(f".{dra.DRIVER}")

    @property
    def countable(self) -> bool:
        """Whether it says how many cards it takes."""
        return (self.allocation_mode or EXACT_COUNT) == EXACT_COUNT

    @property
    def demand(self) -> Demand:
        """Its cost; what it does not name, and what is no share, costs whole cards."""
        if not self.ours:
            return ZERO
        cards = max(1, self.count or 1) if self.countable else dra.MAX_DEVICES
        core_milli = self._asked(dra.CORES, dra.CARD_CORES)
        ppm = self._asked(dra.MEMORY_PPM, dra.CARD_MEMORY_PPM)
        memory_milli = units.ceil_div(ppm * units.MILLI, dra.CARD_MEMORY_PPM)
        return Demand(cards, core_milli * cards, open_memory_milli=memory_milli * cards)

    def _asked(self, capacity: str, whole: int) -> int:
        """An amount of each card, rounded up as the scheduler rounds it."""
        asked = (self.capacity and self.capacity.requests) or {}
        if self.device_class_name != dra.FRACTION_CLASS or capacity not in asked:
            return whole
        try:
            amount = units.parse_quantity(str(asked[capacity]))
        except units.UnitError:
            return whole
        # More than a card has is never given.
        return max(1, min(whole, int(amount.to_integral_value(ROUND_CEILING))))


class _Request(msgspec.Struct, frozen=True, rename="camel"):
    """One exact request, or a list of which the first that fits is given."""

    exactly: _Devices | None = None
    first_available: list[_Devices] | None = None

    def entries(self) -> Iterator[tuple[str, _Devices]]:
        """All of them, with their places."""
        if self.exactly is not None:
            yield "exactly", self.exactly
        for index, entry in enumerate(self.first_available or ()):
            yield f"firstAvailable[{index}]", entry


class _Requests(msgspec.Struct, frozen=True):
    requests: list[_Request] | None = None


class ClaimSpec(msgspec.Struct, frozen=True):
    """The specification of a ResourceClaim, as far as its cost depends on it."""

    devices: _Requests = _Requests()

    @property
    def demand(self) -> Demand:
        """The cost; of a list, the most that one of its entries costs in each amount.

        A share of memory is rounded up to thousandths of a card.
        """
        total = ZERO
        for request in self.devices.requests or ():
            largest = ZERO
            for _, entry in request.entries():
                largest = largest.maximum(entry.demand)
            total += largest
        return total

    def problems(self) -> Iterator[str]:
        """What makes the cost unknown."""
        for index, request in enumerate(self.devices.requests or ()):
            for place, entry in request.entries():
                if entry.ours and not entry.countable:
                    yield (
                        f"spec.devices.requests[{index}].{place}.allocationMode: "
                        f"{entry.allocation_mode} takes a number of cards that no quota can know; "
                        f"allowed: {EXACT_COUNT} with a count"
                    )
