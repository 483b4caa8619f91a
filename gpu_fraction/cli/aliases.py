"""Copies YAML nodes that aliases share, before a change.

Two containers that share their resources by an alias are one object in memory, so a change of one
would change both.
"""

import copy
from collections import Counter
from collections.abc import Iterator, MutableMapping, MutableSequence, Sequence
from typing import Any

from ruamel.yaml.comments import CommentedBase

Key = str | int
Node = MutableMapping[Any, Any] | MutableSequence[Any]


def shared(root: Any) -> bool:
    """True where a mapping or list of the document stands in several places."""
    is_node = isinstance(root, MutableMapping | MutableSequence)
    return is_node and any(count > 1 for count in _references(root).values())


def own(root: Any, path: Sequence[Key]) -> None:
    """Copy the shared nodes along a path, so that a change affects this path only.

    Args:
        root: A document.
        path: Keys and indices from the document to an existing node.
    """
    references = _references(root)
    node = root
    for key in path:
        child = node[key]
        if references[id(child)] > 1:
            child = copy.deepcopy(child)
            _forget_anchors(child)
            node[key] = child
            references = _references(root)
        node = child


def _references(root: Node) -> Counter[int]:
    """The number of references to each mapping and list, by identity."""
    return Counter(id(child) for node in _nodes(root) for child in _children(node))


def _nodes(root: Node) -> Iterator[Node]:
    """A node and every mapping and list below it, once."""
    waiting, seen = [root], set()
    while waiting:
        node = waiting.pop()
        if id(node) not in seen:
            seen.add(id(node))
            waiting += _children(node)
            yield node


def _children(node: Node) -> Iterator[Node]:
    """The mappings and lists directly inside a node, including merged ones."""
    inside = node.values() if isinstance(node, MutableMapping) else node
    yield from (child for child in inside if isinstance(child, MutableMapping | MutableSequence))


def _forget_anchors(copied: Node) -> None:
    """Remove the anchors of a copy; references go to the original."""
    for node in _nodes(copied):
        if isinstance(node, CommentedBase):
            node.anchor.value = None
