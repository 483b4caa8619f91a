"""Who owns which field: ``metadata.managedFields`` and server-side apply.

The rules of structured-merge-diff, reduced: a list is merged item by item where the kind
names a key for it, and is one value otherwise; sets (lists of scalars merged by value) are
not known. Ownership is kept nowhere but in managedFields, as on the real server.

A path is a tuple of FieldsV1 elements: ``f:name`` for a field, ``k:{"name":"x"}`` for an
item of a keyed list, ``.`` for the item itself.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from gpu_fraction.sandbox.apiserver.failures import ApiFailure
from gpu_fraction.sandbox.apiserver.kinds import Kind
from gpu_fraction.sandbox.apiserver.storage import Object

Path = tuple[str, ...]

ITSELF: Final = "."
UNOWNED: Final = frozenset(
    {
        "name",
        "namespace",
        "generateName",
        "uid",
        "resourceVersion",
        "generation",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "managedFields",
        "selfLink",
    }
)
"""Fields of metadata that nobody owns. Source: apiserver managedfields/internal/stripmeta.go."""


@dataclass
class Owner:
    """One entry of managedFields."""

    manager: str
    operation: str
    subresource: str = ""
    api_version: str = ""
    time: str = ""
    paths: set[Path] = field(default_factory=set)

    @property
    def identity(self) -> tuple[str, str, str]:
        """What makes two entries the same owner."""
        return self.manager, self.operation, self.subresource

    def encode(self) -> dict[str, Any]:
        """As an entry of managedFields."""
        tree: dict[str, Any] = {}
        for path in sorted(self.paths):
            node = tree
            for element in path:
                node = node.setdefault(element, {})
        entry = {
            "manager": self.manager,
            "operation": self.operation,
            "apiVersion": self.api_version,
            "time": self.time,
            "fieldsType": "FieldsV1",
            "fieldsV1": tree,
        }
        return {**entry, "subresource": self.subresource} if self.subresource else entry


def owners_of(obj: Object) -> list[Owner]:
    """The entries of an object's managedFields."""
    return [
        Owner(
            entry.get("manager", ""),
            entry["operation"],
            entry.get("subresource", ""),
            entry.get("apiVersion", ""),
            entry.get("time", ""),
            set(_tree_paths(entry.get("fieldsV1", {}), ())),
        )
        for entry in obj["metadata"].get("managedFields") or ()
    ]


def set_owners(obj: Object, owners: Iterable[Owner]) -> None:
    """Write managedFields, without owners that own nothing."""
    entries = [owner.encode() for owner in owners if owner.paths]
    obj["metadata"].pop("managedFields", None)
    if entries:
        obj["metadata"]["managedFields"] = entries


def note_update(kind: Kind, old: Object | None, new: Object, by: Owner) -> None:
    """Record a write that was no apply: what it changed belongs to its manager alone."""
    before = leaves(kind, old) if old else {}
    after = leaves(kind, new)
    changed = {path for path, value in after.items() if before.get(path, _NOTHING) != value}
    removed = before.keys() - after.keys()
    owners = owners_of(old) if old else []
    mine = next((owner for owner in owners if owner.identity == by.identity), None)
    if mine is None:
        mine = by
        owners.append(mine)
    for owner in owners:
        owner.paths -= removed if owner is mine else removed | changed
    if changed:
        mine.paths |= changed
        mine.time = by.time
    set_owners(new, owners)


def apply(kind: Kind, old: Object | None, wanted: Object, by: Owner, *, force: bool) -> Object:
    """The object after an apply.

    Args:
        kind: of the object.
        old: the object before, None where it is created.
        wanted: the fields to own.
        by: the manager; its paths are set here.
        force: take fields that others own.

    Raises:
        ApiFailure: 409 where others own a field and want another value.
    """
    live: Object = old or {"metadata": {}}
    before = leaves(kind, live)
    mine = leaves(kind, wanted)
    others = [owner for owner in owners_of(live) if owner.identity != by.identity]
    previous = {owner.identity: owner.paths for owner in owners_of(live)}.get(by.identity, set())
    result: Object = _merge(kind, live, wanted, ())
    after = leaves(kind, result)
    disputed = [
        (owner, path)
        for owner in others
        for path in sorted(owner.paths & mine.keys())
        if before.get(path, _NOTHING) != after.get(path, _NOTHING)
    ]
    if disputed and not force:
        raise _disputed(disputed)
    for owner, path in disputed:
        owner.paths.discard(path)
    kept = set().union(*(owner.paths for owner in others))
    # Whole items first: afterwards an item without its key could not be found.
    gone = previous - mine.keys() - kept
    for path in sorted(gone, key=lambda path: (path[-1] != ITSELF, len(path))):
        _remove(result, path, kept | mine.keys())
    by.paths = set(mine)
    set_owners(result, [*others, by])
    return result


def leaves(kind: Kind, obj: Object) -> dict[Path, Any]:
    """Every path of an object that can be owned, with its value."""
    found: dict[Path, Any] = {}
    for name, value in obj.items():
        if name in {"apiVersion", "kind"}:
            continue
        if name == "metadata":
            value = {k: v for k, v in value.items() if k not in UNOWNED}  # noqa: PLW2901
        if value != {}:
            found.update(_leaves(kind, value, (f"f:{name}",), name))
    return found


_NOTHING: Final = object()


def _leaves(kind: Kind, value: Any, path: Path, dotted: str) -> Iterator[tuple[Path, Any]]:
    key = kind.list_keys.get(dotted)
    if isinstance(value, dict) and value:
        for name, child in value.items():
            yield from _leaves(kind, child, (*path, f"f:{name}"), f"{dotted}.{name}")
    elif isinstance(value, list) and value and key is not None:
        for item in value:
            at = (*path, _item(key, item))
            yield (*at, ITSELF), None
            for name, child in item.items():
                yield from _leaves(kind, child, (*at, f"f:{name}"), f"{dotted}.{name}")
    else:
        yield path, value


def _merge(kind: Kind, live: Any, wanted: Any, path: tuple[str, ...]) -> Any:
    if isinstance(wanted, dict) and isinstance(live, dict):
        merged = dict(live)
        for name, value in wanted.items():
            merged[name] = _merge(kind, live.get(name), value, (*path, name))
        return merged
    key = kind.list_keys.get(".".join(path))
    if isinstance(wanted, list) and isinstance(live, list) and key is not None:
        items = {item[key]: item for item in live}
        for item in wanted:
            items[item[key]] = _merge(kind, items.get(item[key]), item, path)
        return list(items.values())
    return wanted


def _remove(obj: Any, path: Path, kept: set[Path]) -> None:
    """Remove what a path names, unless somebody owns a part of it."""
    if path[-1] == ITSELF:
        path = path[:-1]
    if any(other[: len(path)] == path for other in kept):
        return
    node = obj
    for element in path[:-1]:
        node = _child(node, element)
        if node is None:
            return
    last = path[-1]
    if last.startswith("f:") and isinstance(node, dict):
        node.pop(last[2:], None)
    elif isinstance(node, list):
        node[:] = [item for item in node if not _is_item(item, last)]


def _child(node: Any, element: str) -> Any:
    if element.startswith("f:"):
        return node.get(element[2:]) if isinstance(node, dict) else None
    if isinstance(node, list):
        return next((item for item in node if _is_item(item, element)), None)
    return None


def _item(key: str, item: Any) -> str:
    return "k:" + msgspec.json.encode({key: item[key]}).decode()


def _is_item(item: Any, element: str) -> bool:
    wanted: dict[str, Any] = msgspec.json.decode(element[2:])
    return all(item.get(name) == value for name, value in wanted.items())


def _tree_paths(tree: dict[str, Any], path: Path) -> Iterator[Path]:
    for element, child in tree.items():
        if child:
            yield from _tree_paths(child, (*path, element))
        else:
            yield (*path, element)


def _disputed(disputed: list[tuple[Owner, Path]]) -> ApiFailure:
    causes = [
        {
            "reason": "FieldManagerConflict",
            "message": f'conflict with "{owner.manager}"'
            + (f" using {owner.api_version}" if owner.operation == "Update" else ""),
            "field": "".join(
                f".{element[2:]}" if element.startswith("f:") else f"[{element[2:]}]"
                for element in path
                if element != ITSELF
            ),
        }
        for owner, path in disputed
    ]
    listed = "; ".join(f"{cause['message']}: {cause['field']}" for cause in causes)
    plural = "conflicts" if len(causes) > 1 else "conflict"
    return ApiFailure(
        409,
        "Conflict",
        f"Apply failed with {len(causes)} {plural}: {listed}",
        details={"causes": causes},
    )
