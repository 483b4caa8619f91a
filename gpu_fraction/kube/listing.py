"""Whole collections: how they are read, and what comes of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import msgspec

from gpu_fraction.kube import errors, requests
from gpu_fraction.kube.objects import Identity, Page, decode
from gpu_fraction.kube.requests import Selection

T = TypeVar("T")

PAGE_SIZE: Final = 500
"""Objects a page. Source: client-go tools/pager/pager.go, defaultPageSize. A page of pods is a few
milliseconds of decoding, so a long list does not hold up the event loop."""


@dataclass(frozen=True, slots=True)
class Listing(Generic[T]):
    """All objects of a collection as of one version."""

    resource_version: str
    items: list[T]


@dataclass(frozen=True, slots=True)
class ListOptions:
    """How a collection is read.

    Attributes:
        selection: which objects.
        page_size: objects a request; 0 for all at once.
        resource_version: empty for a consistent read, ``"0"`` for the server's cache, which
            is cheap for the cluster and may be old.
    """

    selection: Selection = requests.EVERYTHING
    page_size: int = PAGE_SIZE
    resource_version: str = ""


OnMalformed = Callable[[Identity, errors.MalformedAnswerError], None]
"""Told of one object that does not decode; the others are read nevertheless."""


def decode_page(into: type[T], body: bytes, on_malformed: OnMalformed | None) -> Page[T]:
    """One page; where ``on_malformed`` is given it is told of what does not decode.

    Raises:
        errors.MalformedAnswerError: it is no page, or an object of it does not decode and nobody
            is told.
    """
    try:
        return decode(Page[into], body)  # type: ignore[valid-type]
    except errors.MalformedAnswerError:
        if on_malformed is None:
            raise
    raw = decode(Page[msgspec.Raw], body)
    items: list[T] = []
    for item in raw.items or []:
        try:
            items.append(decode(into, item))
        except errors.MalformedAnswerError as error:
            on_malformed(decode(Identity, item), error)
    return Page(metadata=raw.metadata, items=items)
