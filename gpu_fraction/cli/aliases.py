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
    found: Counter[int] = Counter()
    waiting = [root]
    while waiting:
        for child in _children(waiting.pop()):
            found[id(child)] += 1
            if found[id(child)] == 1:
                waiting.append(child)
    return found


def _children(node: Node) -> Iterator[Node]:
    """The mappings and lists directly inside a node, including merged ones."""
    inside = node.values() if isinstance(node, MutableMapping) else node
    yield from (child for child in inside if isinstance(child, MutableMapping | MutableSequence))


def _forget_anchors(node: Node) -> None:
    """Remove the anchors of a copy; references go to the original."""
    waiting, seen = [node], set()
    while waiting:
        member = waiting.pop()
        if id(member) in seen:
            continue
        seen.add(id(member))
        if isinstance(member, CommentedBase):
            member.anchor.value = None
        waiting += _children(member)
