"""Cards from the ResourceSlices of our driver, for callers who may not read nodes."""

from collections.abc import Iterable, Mapping

from gpu_fraction.dashboard.dra_objects import Attribute, Device, DeviceSlice
from gpu_fraction.domain import dra
from gpu_fraction.domain.inventory import Card
from gpu_fraction.domain.units import whole_amount

_NONE = Attribute()


def _current(slices: Iterable[DeviceSlice]) -> list[DeviceSlice]:
    """Our driver's, without those of a pool that a newer generation replaces."""
    ours = [one for one in slices if one.spec.driver == dra.DRIVER]
    newest: dict[str, int] = {}
    for one in ours:
        pool = one.spec.pool
        newest[pool.name] = max(pool.generation, newest.get(pool.name, 0))
    return [one for one in ours if one.spec.pool.generation == newest[one.spec.pool.name]]


def cards_of(slices: Iterable[DeviceSlice]) -> Mapping[str, tuple[Card, ...]]:
    """The cards by node, in the order of the devices; links and the physical card are unknown."""
    found: dict[str, dict[str, Card]] = {}
    for one in sorted(_current(slices), key=lambda s: s.metadata.name):
        cards = found.setdefault(one.spec.node_name or one.spec.pool.name, {})
        for device in one.spec.devices or ():
            card = _card(device, len(cards))
            cards.setdefault(card.uuid, card)
    return {name: tuple(cards.values()) for name, cards in found.items()}


def uuids_of(slices: Iterable[DeviceSlice]) -> Mapping[tuple[str, str], str]:
    """The UUID of each device of our driver, by pool and name."""
    return {
        (one.spec.pool.name, device.name): _uuid(device)
        for one in _current(slices)
        for device in one.spec.devices or ()
    }


def _uuid(device: Device) -> str:
    return (device.attributes or {}).get(dra.UUID, _NONE).string or device.name


def _card(device: Device, index: int) -> Card:
    attributes = device.attributes or {}
    capacity = {name: whole_amount(str(c.value)) for name, c in (device.capacity or {}).items()}
    mig = bool(attributes.get(dra.MIG, _NONE).truth)
    sick = any(taint.key == dra.UNHEALTHY for taint in device.taints or ())
    return Card(
        uuid=_uuid(device),
        index=index,
        model=attributes.get(dra.MODEL, _NONE).string or "",
        memory_mib=max(0, attributes.get(dra.MEMORY_MIB, _NONE).number or 0),
        core_milli=capacity.get(dra.CORES, dra.CARD_CORES),
        slots=capacity.get(dra.SLOTS, 1),
        healthy=not sick,
        health_reason="tainted as unhealthy" if sick else "",
        enforces_memory=bool(attributes.get(dra.ENFORCES_MEMORY, _NONE).truth),
        enforces_compute=bool(attributes.get(dra.ENFORCES_COMPUTE, _NONE).truth),
        # The physical card is not published; what counts is that this is a part of one.
        parent="unknown" if mig else "",
    )
