"""What one request says and another does not."""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from gpu_fraction.domain import keys, sizes, units
from gpu_fraction.domain.problems import Problem
from gpu_fraction.domain.request import Request, Slice, annotation_path


def differences(
    asked: Request, got: Request | None, eligible_mib: frozenset[int]
) -> Iterator[Problem]:
    """What a form does not say of a request.

    Args:
        asked: The request that was written.
        got: The request that the form is read as; None for none.
        eligible_mib: The cards' sizes, by which shares and MiB are compared.
    """
    for key, wanted, read in _compared(asked, got, eligible_mib):
        if wanted != read:
            yield Problem(annotation_path(key), f"{wanted or 'none'} becomes {read or 'none'}")


def _compared(
    asked: Request, got: Request | None, eligible_mib: frozenset[int]
) -> Iterator[tuple[str, str, str]]:
    if got is None:
        yield keys.FRACTION, "the request", ""
        return
    for key, of in _CHOICES.items():
        yield key, of(asked), of(got)
    for part in asked.slices:
        read = got.of(part.container)
        name = f"container {part.container}: "
        if read is None:
            yield keys.CONTAINER_PREFIX + part.container, "a share", ""
            continue
        yield keys.NUM_DEVICES, f"{name}{part.cards}", f"{name}{read.cards}"
        ours, theirs = (_amounts(one, eligible_mib) for one in (part, read))
        yield keys.MEMORY, name + ours[0], name + theirs[0]
        yield keys.CORES, name + ours[1], name + theirs[1]


_CHOICES: Final[Mapping[str, Callable[[Request], str]]] = {
    keys.MODEL: lambda r: ",".join((*r.models, *(f"!{name}" for name in r.not_models))),
    keys.UUID: lambda r: ",".join(r.uuids),
    keys.PLACEMENT: lambda r: r.placement,
    keys.ISOLATION: lambda r: r.isolation,
}


def _amounts(part: Slice, eligible_mib: frozenset[int]) -> tuple[str, str]:
    """Memory and compute of each card in words; shares in MiB where the size is known."""
    amounts = sizes.resolve(part, eligible_mib)
    memory = (
        f"{units.format_percent(part.memory_milli or units.MILLI)} of the memory"
        if amounts.memory_mib is None
        else units.format_memory(amounts.memory_mib)
    )
    if amounts.core_milli is None:
        return memory, "compute in proportion to the memory"
    if not amounts.core_milli:
        return memory, "compute without a limit"
    return memory, f"{units.format_milli(amounts.core_milli)} of the compute"
