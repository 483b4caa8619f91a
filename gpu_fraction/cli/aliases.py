"""YAML aliases, taken apart where a change would reach through them.

Two containers that share their resources by alias are one object once the file is read; what
is added to one of them would be added to both.
"""

import copy
from collections import Counter
from collections.abc import Iterator, MutableMapping, MutableSequence, Sequence
from typing import Any

from ruamel.yaml.comments import CommentedBase

Key = str | int
Node = MutableMapping[Any, Any] | MutableSequence[Any]


def own(root: Any, path: Sequence[Key]) -> None:
    """Give the last node of the path, and every node on the way, to this path alone.

    Nodes that other places refer to are copied for this one.

    Args:
        root: A document.
        path: Keys and indices from the document to a node that is there.
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
    """How many places refer to each mapping and list, by identity."""
    found: Counter[int] = Counter()
    waiting = [root]
    while waiting:
        for child in _children(waiting.pop()):
            found[id(child)] += 1
            if found[id(child)] == 1:
                waiting.append(child)
    return found


def _children(node: Node) -> Iterator[Node]:
    """The mappings and lists directly inside one; merged ones count as its own."""
    inside = node.values() if isinstance(node, MutableMapping) else node
    yield from (child for child in inside if isinstance(child, MutableMapping | MutableSequence))


def _forget_anchors(node: Node) -> None:
    """A copy is not what others refer to by name."""
    waiting, seen = [node], set()
    while waiting:
        member = waiting.pop()
        if id(member) in seen:
            continue
        seen.add(id(member))
        if isinstance(member, CommentedBase):
            member.anchor.value = None
        waiting += _children(member)
