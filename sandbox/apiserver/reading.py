"""Lists and watches."""

import asyncio
import base64
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from gpu_fraction.sandbox.apiserver.failures import (
    ApiFailure,
    bad_request,
    expired,
    invalid_option,
    too_new,
)
from gpu_fraction.sandbox.apiserver.kinds import Kind
from gpu_fraction.sandbox.apiserver.routing import Target
from gpu_fraction.sandbox.apiserver.selectors import Predicate, by_fields, by_labels
from gpu_fraction.sandbox.apiserver.storage import Change, Key, Storage, Stored

INITIAL_EVENTS_END: Final = "k8s.io/initial-events-end"
"""Source: apimachinery pkg/apis/meta/v1/types.go, InitialEventsAnnotationKey."""


@dataclass(frozen=True, slots=True)
class Reading:
    """The query parameters of a list or watch.

    ``initial``: a watch begins with what is there, and a bookmark says where that ends.
    """

    target: Target
    selected: Predicate
    resource_version: str
    match: str = ""
    limit: int = 0
    continuation: str = ""
    timeout_s: float = 1800.0
    bookmarks: bool = False
    initial: bool = False

    @classmethod
    def parse(cls, target: Target, query: Mapping[str, str]) -> "Reading":
        """From a URL.

        Raises:
            ApiFailure: 400 where a parameter cannot be understood, 422 where two do not go
                together.
        """
        initial = _initial(query)
        _revision(query.get("resourceVersion", ""))
        labels = by_labels(query.get("labelSelector", ""))
        fields = by_fields(target.kind, query.get("fieldSelector", ""))
        namespace = target.namespace
        try:
            return cls(
                target,
                lambda obj: (
                    (not namespace or obj["metadata"].get("namespace") == namespace)
                    and labels(obj)
                    and fields(obj)
                ),
                query.get("resourceVersion", ""),
                query.get("resourceVersionMatch", ""),
                int(query.get("limit", "0")),
                query.get("continue", ""),
                float(query.get("timeoutSeconds", "1800")),
                _true(query, "allowWatchBookmarks"),
                initial,
            )
        except ValueError as error:
            raise bad_request(str(error)) from error


def list_objects(storage: Storage, reading: Reading) -> bytes:
    """A list as JSON.

    Raises:
        ApiFailure: 410 where the version is compacted, 504 where it is in the future.
    """
    kind = reading.target.kind
    revision, after = _where(storage, reading)
    try:
        found = storage.snapshot(kind, revision)
    except ApiFailure as failure:
        if reading.continuation:
            raise expired(
                "The provided continue parameter is too old to display a consistent list result."
                " You can start a new list without the continue parameter, or use the continue"
                " token in this response to retrieve the remainder of the results."
            ) from failure
        raise
    rows = sorted((k, s) for k, s in found.items() if k > after and reading.selected(s.body))
    limit = 0 if reading.resource_version == "0" else reading.limit
    page = rows[:limit] if limit else rows
    at = storage.revision if revision is None else revision
    metadata: dict[str, object] = {"resourceVersion": str(at)}
    if len(page) < len(rows):
        metadata["continue"] = _token(at, page[-1][0])
        metadata["remainingItemCount"] = len(rows) - len(page)
    resource = kind.resource
    head = msgspec.json.encode(
        {"kind": f"{resource.kind}List", "apiVersion": resource.api_version, "metadata": metadata}
    )
    items = b",".join(_item(kind, stored) for _, stored in page)
    return head[:-1] + b',"items":[' + items + b"]}\n"


async def events(
    storage: Storage, reading: Reading, *, bookmark_period_s: float
) -> AsyncIterator[list[bytes]]:
    """The lines of a watch, in batches as they become known, until its time is over."""
    loop = asyncio.get_running_loop()
    end = loop.time() + reading.timeout_s
    position = storage.revision
    wanted = _revision(reading.resource_version)
    if reading.initial and wanted > position:
        yield [_line("ERROR", msgspec.json.encode(too_new(wanted, position).status()))]
        return
    if reading.initial:
        kind = reading.target.kind
        found = sorted(storage.snapshot(kind).items())
        lines = [_line("ADDED", s.encoded) for _, s in found if reading.selected(s.body)]
        yield [*lines, _bookmark(kind, position, initial=True)] if reading.bookmarks else lines
    else:
        position = wanted or position
    bookmark_at = loop.time() + bookmark_period_s
    while loop.time() < end:
        try:
            changes = storage.since(position)
        except ApiFailure as failure:
            yield [_line("ERROR", msgspec.json.encode(failure.status()))]
            return
        if changes:
            position = changes[-1].revision
            lines = [line for change in changes if (line := _event(reading, change))]
            if lines:
                yield lines
            continue
        try:
            async with asyncio.timeout_at(min(end, bookmark_at)):
                await storage.wait()
        except TimeoutError:
            bookmark_at = loop.time() + bookmark_period_s
            if reading.bookmarks:
                yield [_bookmark(reading.target.kind, position)]


def _true(query: Mapping[str, str], name: str) -> bool:
    return query.get(name, "") in {"true", "1"}


def _initial(query: Mapping[str, str]) -> bool:
    """Whether a watch begins with what is there: it says so, or names no version.

    Source: apimachinery pkg/apis/meta/internalversion/validation, ValidateListOptions, and
    internalversion/defaults.go, SetListOptionsDefaults.
    """
    asked, match = "sendInitialEvents" in query, query.get("resourceVersionMatch", "")
    if not _true(query, "watch"):
        if asked:
            why = "Forbidden: sendInitialEvents is forbidden for list"
            raise invalid_option("ListOptions", "sendInitialEvents", why)
        return False
    if asked and match != "NotOlderThan":
        why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
        raise invalid_option("ListOptions", "resourceVersionMatch", f"Forbidden: {why}")
    if match and not asked:
        why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
        raise invalid_option("ListOptions", "resourceVersionMatch", f"Forbidden: {why}")
    if asked:
        return _true(query, "sendInitialEvents")
    return query.get("resourceVersion", "") in {"", "0"}


def _where(storage: Storage, reading: Reading) -> tuple[int | None, Key]:
    """The revision to list, None for the current one, and after which object to begin."""
    if reading.continuation:
        try:
            revision, namespace, name = msgspec.json.decode(
                base64.urlsafe_b64decode(reading.continuation), type=tuple[int, str, str]
            )
        except (ValueError, msgspec.MsgspecError) as error:
            raise bad_request("continue key is not valid") from error
        return revision, (namespace, name)
    revision = _revision(reading.resource_version)
    if not revision:
        return None, ("", "")
    if revision > storage.revision:
        raise too_new(revision, storage.revision)
    return (revision if reading.match == "Exact" else None), ("", "")


def _revision(version: str) -> int:
    """As a number; 0 where none is named."""
    if not version:
        return 0
    if not version.isdecimal():
        raise bad_request(f'invalid resource version "{version}"')
    return int(version)


def _token(revision: int, last: Key) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode((revision, *last))).decode()


def _item(kind: Kind, stored: Stored) -> bytes:
    """Items of built-in lists do not repeat their apiVersion and kind."""
    if kind.custom:
        return stored.encoded
    resource = kind.resource
    named = {"apiVersion": resource.api_version, "kind": resource.kind}
    return b"{" + stored.encoded[len(msgspec.json.encode(named)) :]


def _event(reading: Reading, change: Change) -> bytes | None:
    """How a change looks through the selectors: an object enters, changes or leaves."""
    if change.qualified != reading.target.kind.resource.qualified:
        return None
    before = change.old is not None and reading.selected(change.old.body)
    after = change.type != "DELETED" and reading.selected(change.new.body)
    if after:
        return _line("MODIFIED" if before else "ADDED", change.new.encoded)
    if change.old is None or not before:
        return None
    if change.type == "DELETED":
        return _line("DELETED", change.new.encoded)
    # An object that leaves the selection is told as it was, under the version of the change.
    metadata = {**change.old.body["metadata"], "resourceVersion": str(change.revision)}
    return _line("DELETED", msgspec.json.encode({**change.old.body, "metadata": metadata}))


def _bookmark(kind: Kind, revision: int, *, initial: bool = False) -> bytes:
    """A version up to which nothing is missing; the first one ends the initial events."""
    resource = kind.resource
    metadata: dict[str, object] = {"resourceVersion": str(revision)}
    if initial:
        metadata["annotations"] = {INITIAL_EVENTS_END: "true"}
    return _line(
        "BOOKMARK",
        msgspec.json.encode(
            {
                "kind": resource.kind,
                "apiVersion": resource.api_version,
                "metadata": metadata,
            }
        ),
    )


def _line(what: str, encoded: bytes) -> bytes:
    return b'{"type":"' + what.encode() + b'","object":' + encoded + b"}\n"
