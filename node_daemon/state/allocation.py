"""The stored record of one ``Allocate``, and of the container that it was bound to later."""

import hashlib
from dataclasses import dataclass
from typing import Final, NewType

import msgspec

from gpu_fraction.domain import dra
from gpu_fraction.domain.assignment import CardShare
from gpu_fraction.domain.request import DEFAULT_ISOLATION, Isolation
from gpu_fraction.domain.root_user import NOT_KNOWN

Token = NewType("Token", str)
"""The kubelet's name of what it asks for: one device id of ``gpu-fraction.dev/slot``, which names
no card, or a ResourceClaim as ``namespace/name/uid``."""

Nonce = NewType("Nonce", str)
"""A CDI device name, never used twice: hexadecimal and random for one ``Allocate``,
``<claim uid>-<request>`` for a claim."""

PodUid = NewType("PodUid", str)

KIND: Final = "gpu-fraction.dev/slice"
"""The kind of the CDI devices of slots."""

TAG_LENGTH: Final = 20
"""Characters of a binding's tag: chosen, so that no two of a node are equal."""


def kind_of(nonce: Nonce) -> str:
    """The kind of the CDI device of that name."""
    return dra.CDI_KIND if "-" in nonce else KIND


def qualified(nonce: Nonce) -> str:
    """The full CDI name of an allocation."""
    return f"{kind_of(nonce)}={nonce}"


@dataclass(frozen=True, slots=True)
class ContainerKey:
    """One container of one pod, for as long as the pod lives."""

    uid: PodUid
    name: str


class Binding(msgspec.Struct, frozen=True):
    """A container and the cards it was given.

    Attributes:
        shares: Its part of each of its cards, at least one.
        isolation: The isolation that its pod requests.
        root_risk: The field by which a process of its pod could be user 0, with what is
            allowed there; empty where none can.
        own_env: The variables of frameworks that the container sets itself; None where it is to
            get none, or where nothing is known of them.
    """

    namespace: str
    pod: str
    uid: PodUid
    container: str
    shares: tuple[CardShare, ...]
    isolation: Isolation = msgspec.field(default=DEFAULT_ISOLATION, name="demand")
    root_risk: str = NOT_KNOWN
    own_env: dict[str, str | None] | None = None

    @property
    def key(self) -> ContainerKey:
        """The container."""
        return ContainerKey(self.uid, self.container)

    @property
    def tag(self) -> str:
        """A short name of lowercase letters and digits; the same for each start."""
        name = f"{self.uid}/{self.container}".encode()
        return hashlib.sha256(name).hexdigest()[:TAG_LENGTH]


class Allocation(msgspec.Struct, frozen=True):
    """One ``Allocate``: a token of the kubelet's and the name that was answered for it.

    Or one request of a claim, which is bound from the start.

    Attributes:
        nonce: The CDI device name.
        token: The device id that the kubelet chose, or the claim.
        sequence: Position among all allocations of this node; later is higher.
        allocated_at_s: Wall clock, seconds since the epoch.
        binding: The container, from its first ``PreStartContainer`` on.
    """

    nonce: Nonce
    token: Token
    sequence: int
    allocated_at_s: float
    binding: Binding | None = None
