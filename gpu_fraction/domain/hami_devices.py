"""What a container asks of HAMi in a vendor's units, and what such a container costs."""

from collections.abc import Iterable, Mapping
from typing import Final

from gpu_fraction.domain import units
from gpu_fraction.domain.edit import PodEdit
from gpu_fraction.domain.hami_vendors import SLICES, VENDORS, WHOLE, Vendor
from gpu_fraction.domain.pod import Container, Resources
from gpu_fraction.domain.pod_amounts import amount_of, asked_for, whole_cards
from gpu_fraction.domain.request import Slice
from gpu_fraction.domain.sizes import Amounts


def resources(
    edit: PodEdit, key: str, part: Slice, amounts: Amounts, vendor: Vendor
) -> dict[str, int | str]:
    """A container's resources; what the vendor's devices cannot give is refused.

    Args:
        edit: The pod's.
        key: The annotation that asks for the share.
        part: The container's request.
        amounts: The same in integers.
        vendor: Whose devices the cluster has.
    """
    name = f"container {part.container}"
    if part.whole:
        if part.cards % vendor.even:
            edit.refuse(
                key,
                f"{name} asks for {part.cards} of {vendor.name}, which come in twos; "
                f"allowed: {part.cards + 1}",
            )
        return _whole(part.cards, vendor)
    if not vendor.memory or vendor.even > 1:
        edit.refuse(
            key,
            f"{name} asks for a part of a device, but HAMi gives whole ones only of "
            f'{vendor.name}; allowed: gpu-fraction "{vendor.even}", "{2 * vendor.even}", …',
        )
        return {}
    if part.cards > 1 and not vendor.several:
        edit.refuse(
            key,
            f"{name} asks for parts of {part.cards} devices, but HAMi gives a part of one only "
            f"of {vendor.name}; allowed: a part of one, or whole devices",
        )
    return _share(edit, key, part, amounts, vendor)


def _whole(cards: int, vendor: Vendor) -> dict[str, int | str]:
    found: dict[str, int | str] = {vendor.whole or vendor.count: cards}
    if "memory" in vendor.told:
        each = vendor.card_mib // vendor.unit_mib
        found[vendor.memory] = each * (cards if vendor.totals else 1)
    if "cores" in vendor.told:
        found[vendor.cores] = vendor.core_parts * cards
    return found


def _share(
    edit: PodEdit, key: str, part: Slice, amounts: Amounts, vendor: Vendor
) -> dict[str, int | str]:
    name, memory_mib = f"container {part.container}", amounts.memory_mib
    if memory_mib is None:
        edit.refuse(
            key,
            f"{name} asks for a share, but HAMi takes an amount of memory of {vendor.name} and no "
            "setting says how much the devices have; set --gpu-memory-mib, or ask for gpu-memory",
        )
        return {}
    given = _given_mib(memory_mib, part.core_milli or 0, vendor)
    if given != memory_mib:
        edit.warn(
            f"{name}: {memory_mib} MiB is rounded up to {given} MiB, a size that HAMi has for "
            f"{vendor.name}"
        )
    found: dict[str, int | str] = {vendor.count: part.cards} if vendor.count else {}
    found[vendor.memory] = (
        given // vendor.unit_mib if vendor.unit_mib else units.format_memory(given)
    )
    if not vendor.cores or vendor.size_milli:
        return found
    if amounts.core_milli:
        wanted = amounts.core_milli * vendor.core_parts
        found[vendor.cores] = units.ceil_div(wanted, units.MILLI)
        if wanted % units.MILLI:
            edit.warn(
                f"{name}: {units.format_milli(amounts.core_milli)} of compute is rounded up to "
                f"{found[vendor.cores]} of {vendor.core_parts} parts of {vendor.name}"
            )
    elif vendor.all_cores:
        found[vendor.cores] = vendor.core_parts  # what HAMi takes for none
        edit.warn(
            f"{name}: it gets all of the device's compute, because no setting says how much "
            "memory the devices have"
        )
    return found


def _given_mib(memory_mib: int, core_milli: int, vendor: Vendor) -> int:
    """The memory that HAMi gives: the next of its sizes, with as much compute."""
    if not vendor.sizes_mib:
        return -(-memory_mib // (vendor.unit_mib or 1)) * (vendor.unit_mib or 1)
    milli = vendor.size_milli or (units.MILLI,) * len(vendor.sizes_mib)
    for size_mib, size_milli in zip(vendor.sizes_mib, milli, strict=True):
        if size_mib >= memory_mib and size_milli >= core_milli:
            return size_mib
    return vendor.card_mib


def names(vendor: Vendor) -> list[str]:
    """Every resource of a vendor."""
    found = (vendor.count, vendor.memory, vendor.cores, vendor.whole)
    return [name for name in found if name]


_BY_RESOURCE: Final[Mapping[str, Vendor]] = {
    name: vendor for vendor in VENDORS for name in names(vendor)
}


def asks(container: Container, *, up: bool) -> Iterable[Slice]:
    """What a container asks of each vendor but NVIDIA, whoever wrote it.

    Args:
        container: The container.
        up: Parts of a thousandth are rounded up, and whole devices of known size are MiB; else
            down, and whole devices.
    """
    found = (_BY_RESOURCE.get(name) for name in container.resource_names())
    for vendor in dict.fromkeys(vendor for vendor in found if vendor is not None):
        if (part := _ask(container, vendor, up=up)) is not None:
            yield part
        if vendor.whole and (part := whole_cards(container, (vendor.whole,))) is not None:
            yield part
    if (part := whole_cards(container, WHOLE)) is not None:
        yield part
    if any(amount_of(container.resources, name) for name in SLICES):
        yield asked_for(container, cards=1, core_milli=units.MILLI)


def _ask(container: Container, vendor: Vendor, *, up: bool) -> Slice | None:
    cards = amount_of(container.resources, vendor.count)
    memory_mib = _mib(container.resources, vendor)
    cores = amount_of(container.resources, vendor.cores)
    # Memory that is rounded down to nothing asks as well: for all of it, as a count alone does.
    if not (cards or cores or amount_of(container.resources, vendor.memory)):
        return None
    cards = max(1, cards)
    milli = cores * units.MILLI + (vendor.core_parts - 1 if up else 0)
    core_milli: int | None = min(units.MILLI, milli // vendor.core_parts)
    if memory_mib:
        memory_mib = _given_mib(memory_mib, 0, vendor)
        if memory_mib in vendor.sizes_mib and vendor.size_milli:
            size_milli = vendor.size_milli[vendor.sizes_mib.index(memory_mib)]
            core_milli = max(core_milli or 0, size_milli)
    if not core_milli:
        follows = memory_mib and not vendor.all_cores
        core_milli = None if follows else units.MILLI
    whole = core_milli == units.MILLI and memory_mib == vendor.card_mib
    if whole or (cards > 1 and not vendor.several):
        # HAMi gives several whole, or refuses them.
        core_milli, memory_mib = units.MILLI, vendor.card_mib if up else 0
    return asked_for(container, cards=cards, core_milli=core_milli, memory_mib=memory_mib)


def _mib(asked: Resources | None, vendor: Vendor) -> int:
    amount = amount_of(asked, vendor.memory)
    if vendor.unit_mib:
        return amount * vendor.unit_mib
    text = (asked.of(vendor.memory) if asked else None) or ""
    # HAMi takes a plain number as GiB, and rounds bytes down.
    return amount // units.MIB if any(c.isalpha() for c in text) else amount * 1024
