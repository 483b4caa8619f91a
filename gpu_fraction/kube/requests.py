"""Requests to the API server as data: built here without I/O, sent by the transport.

Each function returns the request for one verb. ``idempotent`` is False where repeating it
after a lost answer can do harm; the retry rule reads it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final
from urllib.parse import urlencode

import msgspec

from gpu_fraction.kube.resources import Address

JSON: Final = "application/json"

Body = Mapping[str, Any] | msgspec.Struct | bytes
"""A request body: a manifest, a typed object, or encoded JSON."""


class PatchKind(Enum):
    """How a patch body is read; the value is its content type."""

    JSON = "application/json-patch+json"
    """RFC 6902: a list of operations."""
    MERGE = "application/merge-patch+json"
    """RFC 7386: null deletes, lists are replaced."""
    STRATEGIC = "application/strategic-merge-patch+json"
    """Merge patch that knows Kubernetes' list keys; built-in resources only."""


@dataclass(frozen=True, slots=True)
class ServerPath:
    """A path of the server that is not a resource, such as ``/version``."""

    path: str

    @property
    def qualified(self) -> str:
        """The path, in metrics labels."""
        return self.path

    def __str__(self) -> str:
        return self.path


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request.

    Attributes:
        verb: Kubernetes' word for it, as RBAC and audit logs use: get, list, watch, create,
            update, patch, delete.
        idempotent: True where sending it twice leaves what sending it once leaves.
    """

    verb: str
    method: str
    address: Address | ServerPath
    query: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None
    content_type: str = JSON
    idempotent: bool = True

    @property
    def target(self) -> str:
        """Path and query."""
        path = self.address.path
        return f"{path}?{urlencode(self.query)}" if self.query else path


@dataclass(frozen=True, slots=True)
class Selection:
    """Which objects of a collection.

    Attributes:
        labels: label selector, such as ``app=trainer``.
        fields: field selector, such as ``spec.nodeName=n1``.
    """

    labels: str = ""
    fields: str = ""

    def query(self) -> list[tuple[str, str]]:
        """As query parameters."""
        return _present(labelSelector=self.labels, fieldSelector=self.fields)


EVERYTHING: Final = Selection()


@dataclass(frozen=True, slots=True)
class WriteOptions:
    """Options of a write.

    Attributes:
        dry_run: run admission and validation, store nothing.
        field_manager: name under which the fields are owned; empty: from the user agent.
    """

    dry_run: bool = False
    field_manager: str = ""

    def query(self) -> list[tuple[str, str]]:
        """As query parameters."""
        return _present(dryRun="All" if self.dry_run else "", fieldManager=self.field_manager)


PLAIN_WRITE: Final = WriteOptions()


def get(address: Address | ServerPath) -> Request:
    """Read one object, or a path of the server."""
    return Request("get", "GET", address)


def list_page(
    address: Address,
    selection: Selection = EVERYTHING,
    *,
    limit: int = 0,
    continuation: str = "",
) -> Request:
    """Read one page of a collection.

    Args:
        address: the collection.
        selection: which objects.
        limit: objects a page; 0 for all at once.
        continuation: token from the previous page.
    """
    query = selection.query() + _present(limit=str(limit) if limit else "")
    # "continue" is a keyword of Python, so it cannot be passed by name.
    query += [("continue", continuation)] if continuation else []
    return Request("list", "GET", address, tuple(query))


def watch(
    address: Address,
    selection: Selection = EVERYTHING,
    *,
    resource_version: str,
    timeout_s: int,
) -> Request:
    """Follow a collection from a version on, with bookmarks.

    Args:
        address: the collection.
        selection: which objects.
        resource_version: the last version already known.
        timeout_s: whole seconds after which the server ends the stream.
    """
    query = [
        ("watch", "true"),
        ("allowWatchBookmarks", "true"),
        ("timeoutSeconds", str(timeout_s)),
        ("resourceVersion", resource_version),
    ]
    return Request("watch", "GET", address, tuple(query + selection.query()))


def create(address: Address, body: Body, options: WriteOptions = PLAIN_WRITE) -> Request:
    """Create an object in a collection, or post to a subresource such as ``binding``.

    Not idempotent: a repeat after a lost answer meets its own first try (AlreadyExists), or
    with generateName makes a second object.
    """
    return Request(
        "create", "POST", address, tuple(options.query()), encode(body), idempotent=False
    )


def replace(address: Address, body: Body, options: WriteOptions = PLAIN_WRITE) -> Request:
    """Write a whole object. With its resourceVersion the write is refused if it changed."""
    return Request("update", "PUT", address, tuple(options.query()), encode(body))


def patch(
    address: Address,
    kind: PatchKind,
    body: Body | Iterable[Mapping[str, Any]],
    options: WriteOptions = PLAIN_WRITE,
) -> Request:
    """Change part of an object.

    A JSON patch may append to a list, so it is not taken to be idempotent.
    """
    return Request(
        "patch",
        "PATCH",
        address,
        tuple(options.query()),
        encode(body),
        kind.value,
        idempotent=kind is not PatchKind.JSON,
    )


def apply(address: Address, body: Body, *, field_manager: str, force: bool) -> Request:
    """Server-side apply: the manager owns exactly the fields in the body.

    Args:
        address: the object; it is created where it does not exist.
        body: the wanted fields, with apiVersion and kind.
        field_manager: the owner's name.
        force: True to take fields from other owners, False for a conflict.
    """
    query = _present(fieldManager=field_manager, force="true" if force else "false")
    # The body is JSON, which is YAML too.
    return Request(
        "patch", "PATCH", address, tuple(query), encode(body), "application/apply-patch+yaml"
    )


def delete(address: Address, options: Mapping[str, Any] | None = None) -> Request:
    """Delete one object.

    Args:
        address: the object.
        options: fields of metav1.DeleteOptions, such as ``preconditions``.
    """
    body = {"apiVersion": "v1", "kind": "DeleteOptions", **(options or {})}
    return Request("delete", "DELETE", address, body=encode(body))


def encode(body: Body | Iterable[Mapping[str, Any]]) -> bytes:
    """JSON of a body; bytes pass unchanged."""
    return body if isinstance(body, bytes) else msgspec.json.encode(body)


def _present(**parameters: str) -> list[tuple[str, str]]:
    return [(name, value) for name, value in parameters.items() if value]
