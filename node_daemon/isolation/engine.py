"""The interface of isolation engines, and the types they work on."""

import abc
import enum
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from gpu_fraction.domain.assignment import CardShare
from gpu_fraction.domain.inventory import Isolation
from gpu_fraction.node_daemon.state.allocation import Binding


class Resource(enum.Enum):
    """The resources of a card that are shared."""

    MEMORY = "memory"
    COMPUTE = "compute"


class Strength(enum.IntEnum):
    """The strength of a limit.

    NONE: there is no limit. COOPERATIVE: it holds for programs that do not try to get round it:
    something inside the container keeps it. ENFORCED: driver or hardware keeps it, and nothing
    inside the container can change that.
    """

    NONE = 0
    COOPERATIVE = 1
    ENFORCED = 2


@dataclass(frozen=True, slots=True)
class CardFacts:
    """The properties of a card that decide which engines it can have.

    Attributes:
        memory_mib: Memory for containers.
        compute_capability: Major, minor; (0, 0) where unknown.
        mig_instance: It is an instance, isolated by the hardware.
    """

    uuid: str
    index: int = 0
    memory_mib: int = 0
    compute_capability: tuple[int, int] = (0, 0)
    mig_instance: bool = False


@dataclass(frozen=True, slots=True)
class Part:
    """The work of one engine for a container: on these cards, for these resources."""

    binding: Binding
    shares: tuple[CardShare, ...]
    resources: frozenset[Resource]


@dataclass(frozen=True, slots=True)
class ContainerEdits:
    """Changes to a container, as the Container Device Interface writes them.

    Attributes:
        env: Environment; replaces what the pod sets under the same name.
        shrinks_total: A process sees its share as the card's total memory.
    """

    env: Mapping[str, str] = field(default_factory=dict)
    mounts: Sequence[Mapping[str, object]] = ()
    device_nodes: Sequence[Mapping[str, object]] = ()
    hooks: Sequence[Mapping[str, object]] = ()
    shrinks_total: bool = False

    def and_(self, other: "ContainerEdits") -> "ContainerEdits":
        """Both; the other's environment wins."""
        return ContainerEdits(
            {**self.env, **other.env},
            (*self.mounts, *other.mounts),
            (*self.device_nodes, *other.device_nodes),
            (*self.hooks, *other.hooks),
            self.shrinks_total or other.shrinks_total,
        )


def bind_mount(host: str, container: str, *, writable: bool = False) -> Mapping[str, object]:
    """A CDI mount of a host path."""
    access = "rw" if writable else "ro"
    return {
        "hostPath": host,
        "containerPath": container,
        "options": [access, "nosuid", "nodev", "bind"],
    }


def compute_percent(shares: Sequence[CardShare]) -> int:
    """The compute limit of engines with one percentage for all cards, 0 for none.

    The smallest share, rounded down so that a full card is never overdrawn, and never to 0,
    which would mean no limit.
    """
    limited = [share.core_milli for share in shares if share.core_milli]
    return max(1, min(limited) // 10) if limited else 0


class Engine(abc.ABC):
    """One way to keep containers within their shares.

    The methods block, each for a bounded time, and may be called from several threads.

    Attributes:
        name: The engine's name in the inventory.
        max_containers: The most containers it serves on one card, None for any number.
        optional: True where a pod may do without it: it neither shields others nor holds the
            card.
    """

    name: Isolation
    max_containers: int | None = None
    optional = False

    @abc.abstractmethod
    def enforces(self, resource: Resource) -> Strength:
        """The strength of its limit on this resource, on a card that it can serve."""

    def loophole(self, resource: Resource, binding: Binding) -> str:
        """Why its limit would not hold for this one container, empty where it does."""
        del resource, binding
        return ""

    @abc.abstractmethod
    def probe(self, cards: Sequence[CardFacts]) -> Mapping[str, str]:
        """The cards that it cannot serve now, and why."""

    @abc.abstractmethod
    def prepare(self, part: Part) -> None:
        """Set up what is outside the container; idempotent, before each of its starts.

        Raises:
            EngineFailedError: it could not.
        """

    @abc.abstractmethod
    def edits(self, part: Part) -> ContainerEdits:
        """The container's edits; pure, the same for each of its starts."""

    def release(self, binding: Binding) -> None:  # noqa: B027 - an engine may keep nothing
        """Undo ``prepare``; idempotent, also for containers that it never served.

        Raises:
            EngineFailedError: not yet; to be tried again.
        """

    @abc.abstractmethod
    def restore(self, parts: Sequence[Part], known: Collection[str]) -> None:
        """Set up what these containers need, and remove what belongs to none.

        Args:
            parts: Its work for each container, on the cards as they are now.
            known: Tags of all containers that are set up. A card may have got a better engine
                since one was; a container uses what it was started with until it ends.

        Raises:
            EngineFailedError: for some it could not.
        """
