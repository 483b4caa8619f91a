"""What a container is given beside its cards: the environment, mounts and hooks of an engine."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from node_daemon.allocation import Binding

__all__ = ["Edits", "IsolationEngine"]

RawEdits = Mapping[str, Any]
"""``containerEdits`` of the Container Device Interface, as JSON."""


@dataclass(frozen=True, slots=True)
class Edits:
    """Changes to one container.

    Attributes:
        env: Environment; replaces what the pod sets under the same name.
        mounts: CDI ``mounts`` objects.
        device_nodes: CDI ``deviceNodes`` objects.
        hooks: CDI ``hooks`` objects.
    """

    env: Mapping[str, str] = field(default_factory=dict)
    mounts: Sequence[RawEdits] = ()
    device_nodes: Sequence[RawEdits] = ()
    hooks: Sequence[RawEdits] = ()


class IsolationEngine(Protocol):
    """What keeps a container within its share of a card."""

    async def edits(self, slice_: Binding) -> Edits:
        """What the container needs; idempotent, asked before each of its starts.

        Raises:
            Refusal: the engine cannot serve the slice now.
        """
        ...

    async def release(self, slice_: Binding) -> None:
        """Undo what ``edits`` set up outside the container; idempotent."""
        ...
