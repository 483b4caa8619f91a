"""A ``Request`` as the ``gpu-fraction.dev/request`` annotation, in canonical JSON.

The webhook writes it; the extender, the node daemon and the quota read it, so they need neither
the user's annotations nor the settings in force at the pod's creation.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Final, Literal

import msgspec

from gpu_fraction.domain import formats, keys, units
from gpu_fraction.domain.request import MAX_CARDS, Isolation, Placement, Request, Slice

VERSION: Final = 1

_Milli = Annotated[int, msgspec.Meta(ge=1, le=units.MILLI)]
_Cards = Annotated[int, msgspec.Meta(ge=1, le=MAX_CARDS)]
# The upper end is chosen: more than any machine has, and no sum overflows.
_Mib = Annotated[int, msgspec.Meta(ge=1, le=1 << 40)]


class RequestAnnotationError(ValueError):
    """The annotation's value is not a request; the message names the field."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """A request and the backend that rendered it."""

    backend: str
    request: Request


class _Slice(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    name: str
    cards: _Cards
    core_milli: _Milli | None = None
    memory_mib: _Mib | None = None
    memory_milli: _Milli | None = None


class _Wire(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    v: Literal[1]
    backend: str
    containers: Annotated[tuple[_Slice, ...], msgspec.Meta(min_length=1)]
    placement: Placement
    isolation: Isolation
    models: tuple[str, ...] = ()
    not_models: tuple[str, ...] = ()
    uuids: tuple[str, ...] = ()


_DECODER: Final = msgspec.json.Decoder(_Wire)
_ENCODER: Final = msgspec.json.Encoder(order="deterministic")


def render(request: Request, backend: str) -> str:
    """Canonical JSON: same request, same bytes."""
    wire = _Wire(
        v=VERSION,
        backend=backend,
        containers=tuple(
            _Slice(s.container, s.cards, s.core_milli, s.memory_mib, s.memory_milli)
            for s in request.slices
        ),
        placement=request.placement,
        isolation=request.isolation,
        models=request.models,
        not_models=request.not_models,
        uuids=request.uuids,
    )
    return _ENCODER.encode(wire).decode()


def load(text: str) -> Rendered:
    """Read the annotation back; unknown fields are ignored, so that older readers still work.

    Raises:
        RequestAnnotationError: not JSON, another version, an amount out of range, no container
            or one twice.
    """
    try:
        wire = _DECODER.decode(text)
        slices = tuple(
            Slice(s.name, s.cards, s.core_milli, s.memory_mib, s.memory_milli)
            for s in wire.containers
        )
    except (msgspec.MsgspecError, ValueError) as e:
        told = formats.other_version(text, VERSION) or f"not a request: {e}"
        raise RequestAnnotationError(told) from e
    if len({part.container for part in slices}) != len(slices):
        raise RequestAnnotationError("not a request: names a container twice")
    request = Request(
        slices, wire.models, wire.not_models, wire.uuids, wire.placement, wire.isolation
    )
    return Rendered(wire.backend, request)


def find(annotations: Mapping[str, str]) -> Rendered | None:
    """The pod's request as the webhook rendered it; None where absent or unreadable."""
    text = annotations.get(keys.REQUEST)
    try:
        return None if text is None else load(text)
    except RequestAnnotationError:
        return None
