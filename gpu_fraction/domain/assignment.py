"""The cards of a pod's containers: the ``gpu-fraction.dev/assigned`` annotation.

The scheduler extender writes it in the Binding; without an extender the node daemon writes it.
The node daemon, the extender and the quota controller read it.
"""

from collections.abc import Mapping
from typing import Final, Literal

import msgspec

from gpu_fraction.domain import formats
from gpu_fraction.domain.keys import ASSIGNED

VERSION: Final = 1


class AssignmentError(ValueError):
    """The annotation's value is not an assignment; the message names the place."""


class CardShare(msgspec.Struct, frozen=True, rename="camel"):
    """One container's part of one card.

    Attributes:
        uuid: The card, as NVML names it (``GPU-…`` or ``MIG-…``).
        core_milli: Thousandths of the card's compute, 0 to 1000; 0 for no limit.
        memory_mib: MiB of the card's memory, 1 or more.
    """

    uuid: str
    core_milli: int
    memory_mib: int


Assignment = Mapping[str, tuple[CardShare, ...]]
"""Container name to its cards, at least one each."""


class _Wire(msgspec.Struct, frozen=True):
    v: Literal[1]
    containers: dict[str, tuple[CardShare, ...]]


_DECODER: Final = msgspec.json.Decoder(_Wire)
_ENCODER: Final = msgspec.json.Encoder(order="sorted")


def parse(text: str) -> Assignment:
    """Read the annotation; unknown fields are ignored, so that older readers still work.

    Raises:
        AssignmentError: not JSON, another version, a container without cards, a card twice
            in one container, or an amount out of range.
    """
    try:
        wire = _DECODER.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as e:
        told = formats.other_version(text, VERSION) or f"not an assignment: {e}"
        raise AssignmentError(told) from e
    if not wire.containers:
        raise AssignmentError("names no container")
    for container, shares in wire.containers.items():
        _check(container, shares)
    return wire.containers


def find(annotations: Mapping[str, str]) -> Assignment:
    """The assignment of a pod; empty where there is none, or none that can be read."""
    text = annotations.get(ASSIGNED)
    try:
        return {} if text is None else parse(text)
    except AssignmentError:
        return {}


def _check(container: str, shares: tuple[CardShare, ...]) -> None:
    if not shares:
        raise AssignmentError(f"container {container!r} has no card")
    if len({share.uuid for share in shares}) != len(shares):
        raise AssignmentError(f"container {container!r} names a card twice")
    for share in shares:
        if not share.uuid or not share.uuid.isascii():
            raise AssignmentError(f"container {container!r} names card {share.uuid!r}")
        if not 0 <= share.core_milli <= 1000:
            raise AssignmentError(f"container {container!r} has coreMilli {share.core_milli}")
        if share.memory_mib < 1:
            raise AssignmentError(f"container {container!r} has memoryMib {share.memory_mib}")


def render(assignment: Assignment) -> str:
    """Canonical JSON; equal assignments have equal bytes."""
    return _ENCODER.encode(_Wire(v=VERSION, containers=dict(assignment))).decode()
