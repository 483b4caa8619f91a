"""The three kinds of partial update, besides server-side apply."""

from collections.abc import Mapping
from typing import Any

import jsonpatch

from gpu_fraction.sandbox.apiserver.failures import ApiFailure, bad_request
from gpu_fraction.sandbox.apiserver.kinds import Kind


def json_patch(document: dict[str, Any], operations: list[dict[str, Any]]) -> dict[str, Any]:
    """RFC 6902.

    Raises:
        ApiFailure: 422 where an operation or a test does not fit the object.
    """
    try:
        patched: dict[str, Any] = jsonpatch.apply_patch(document, operations)
    except jsonpatch.InvalidJsonPatch as error:
        raise bad_request(str(error)) from error
    except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException) as error:
        raise ApiFailure(
            422,
            "Invalid",
            "the server rejected our request due to an error in our request",
        ) from error
    return patched


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, Mapping):
        return patch
    merged = dict(target) if isinstance(target, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), value)
    return merged


def strategic_patch(kind: Kind, target: Any, patch: Any) -> Any:
    """A merge patch that merges the lists for which the kind has a key.

    Of the directives only ``$patch: delete`` on an item and ``$patch: replace`` on an object
    are understood.
    """
    return _strategic(kind, target, patch, ())


def _strategic(kind: Kind, target: Any, patch: Any, path: tuple[str, ...]) -> Any:
    if not isinstance(patch, Mapping):
        key = kind.list_keys.get(".".join(path))
        if isinstance(patch, list) and isinstance(target, list) and key is not None:
            return _merge_items(kind, target, patch, path, key)
        return patch
    if patch.get("$patch") == "replace":
        return {name: value for name, value in patch.items() if name != "$patch"}
    merged = dict(target) if isinstance(target, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = _strategic(kind, merged.get(name), value, (*path, name))
    return merged


def _merge_items(
    kind: Kind, target: list[Any], patch: list[Any], path: tuple[str, ...], key: str
) -> list[Any]:
    merged = list(target)
    for item in patch:
        at = next((i for i, old in enumerate(merged) if old.get(key) == item.get(key)), None)
        if item.get("$patch") == "delete":
            merged = [old for old in merged if old.get(key) != item.get(key)]
        elif at is None:
            merged.append(item)
        else:
            merged[at] = _strategic(kind, merged[at], item, path)
    return merged
