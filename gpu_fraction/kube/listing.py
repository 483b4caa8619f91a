"""Lists of whole collections, page by page."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import msgspec

from gpu_fraction.kube import errors
from gpu_fraction.kube.objects import Identity, Page, decode

T = TypeVar("T")

PAGE_SIZE: Final = 500
"""Objects a page. Source: client-go tools/pager/pager.go, defaultPageSize. A page of pods is a few
milliseconds of decoding, so a long list does not hold up the event loop."""


@dataclass(frozen=True, slots=True)
class Listing(Generic[T]):
    """All objects of a collection as of one version."""

    resource_version: str
    items: list[T]


OnMalformed = Callable[[Identity, errors.MalformedAnswerError], None]
"""Called for each object that does not decode; the others are read nevertheless."""


def decode_page(into: type[T], body: bytes, on_malformed: OnMalformed | None) -> Page[T]:
    """One page of a list.

    Args:
        into: the type of the objects.
        body: the page as JSON.
        on_malformed: called for each object that does not decode; None to raise.

    Raises:
        errors.MalformedAnswerError: the page does not decode, or without ``on_malformed`` an
            object of it.
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
