"""Warnings about GPU annotations on a workload instead of its pod template."""

from collections.abc import Iterator, MutableMapping
from typing import Any

from gpu_fraction.cli.manifests import TEMPLATES, Document, Place, dotted, mapping_at, objects
from gpu_fraction.domain import keys

_Mapping = MutableMapping[str, Any]


def misplaced(document: Document) -> Iterator[str]:
    """A warning for each annotation of ours on an object that makes pods from a template."""
    for whole in objects(document, document.body):
        places = [*_places(whole.raw, whole.path, set())]
        bare = [at for at, place in places if _is_pod(place) and not _annotated(place)]
        for at, place in places:
            key = _annotated(place)
            below = [dotted((*p, "metadata")) for p in bare if key and p[: len(at)] == at]
            if below:
                copies = "" if whole.kind in TEMPLATES else " unless its operator copies it"
                yield (
                    f"{whole}: {dotted((*at, 'metadata', 'annotations'))}[{key}]: its pods will "
                    f"have no GPU{copies}; move it to {', '.join(below)}"
                )


def _places(node: object, at: Place, seen: set[int]) -> Iterator[tuple[Place, _Mapping]]:
    """Every mapping below, once: aliases of aliases can repeat one a million times."""
    if not isinstance(node, MutableMapping | list) or id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, MutableMapping):
        yield at, node
    pairs = node.items() if isinstance(node, MutableMapping) else enumerate(node)
    for key, value in pairs:
        yield from _places(value, (*at, key), seen)


def _is_pod(place: _Mapping) -> bool:
    return isinstance((mapping_at(place, "spec") or {}).get("containers"), list)


def _annotated(place: _Mapping) -> str | None:
    given = mapping_at(place, "metadata", "annotations") or {}
    ours = (name for name in given if isinstance(name, str) and keys.is_ours(name))
    return next((name for name in ours if name not in (*keys.SYSTEM_KEYS, keys.QUOTA_FREED)), None)
