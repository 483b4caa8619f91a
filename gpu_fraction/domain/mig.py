"""MIG: the instances that NVIDIA's cards can be divided into, and the smallest that holds a share.

Source of profiles and fractions: NVIDIA MIG User Guide, Supported MIG Profiles (r590 and r610,
2026-10); of their names by card: NVIDIA/gpu-operator assets/state-mig-manager/0400_configmap.yaml
at a22dbf67 (2026-08-21). Profiles with other engines (``+me``, ``+gfx``, ``-me``) are not chosen.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from gpu_fraction.domain import units
from gpu_fraction.domain.request import Slice

_NAME: Final = re.compile(r"([1-7])g\.([0-9]{1,4})gb(?:\.[a-z.]+)?", re.ASCII)
"""A profile in a resource name, which has ``.`` for ``+``
(NVIDIA/k8s-device-plugin api/config/v1/resources.go)."""

_SLICES: Final = 7
"""Compute slices of a card that is not in the table; most have so many."""

_LOST_MIB: Final = 3 << 10
_LOST_PART: Final = 8
"""An instance has less memory than its name says: at most this many MiB and this part of it less.

Source: ``nvidia-smi mig -lgip`` of A100, H100, H200 and B200 in NVIDIA/mig-parted#101, #120, #166,
#187: 1g.10gb has 9.50 GiB, 1g.18gb 16.00, 1g.23gb 20.50 to 22.00, 2g.35gb 32.25, 3g.71gb 69.50.
"""


def _least_mib(gib: int) -> int:
    named = gib * 1024
    return named - min(_LOST_MIB, named // _LOST_PART)


@dataclass(frozen=True, slots=True)
class Profile:
    """One form of instance.

    Attributes:
        name: As ``nvidia-smi`` has it, without ``MIG``.
        compute: Its compute slices.
        gib: The memory in its name.
        memory: Its memory slices.
    """

    name: str
    compute: int
    gib: int
    memory: int

    @property
    def least_mib(self) -> int:
        """MiB that a container can count on."""
        return _least_mib(self.gib)


@dataclass(frozen=True, slots=True)
class Model:
    """A card that can be divided.

    Attributes:
        name: As settings and users name it.
        also: Words of its product names that stand for its name.
        compute: Compute slices of the card.
        memory: Memory slices of the card.
        profiles: Its profiles, smallest first.
    """

    name: str
    also: tuple[str, ...]
    compute: int
    memory: int
    profiles: tuple[Profile, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its profiles."""
        return tuple(profile.name for profile in self.profiles)

    def holding(self, part: Slice) -> Profile | None:
        """The smallest profile with the share that a container asks; None where none has it.

        Compute that follows an amount of memory is what the profile has.
        """
        for profile in self.profiles:
            enough = (
                profile.least_mib >= part.memory_mib
                if part.memory_mib is not None
                else profile.memory * units.MILLI >= (part.memory_milli or 0) * self.memory
            )
            if enough and profile.compute * units.MILLI >= (part.core_milli or 0) * self.compute:
                return profile
        return None


def _model(name: str, slices: tuple[int, int], profiles: str, *also: str) -> Model:
    """A model from its profiles' names, each with its memory slices: ``1g.10gb:1``."""
    found = []
    for word in profiles.split():
        profile, _, memory = word.partition(":")
        compute, gib = (int(number) for number in re.findall(r"\d+", profile))
        found.append(Profile(profile, compute, gib, int(memory)))
    return Model(name, (name, *also), *slices, tuple(found))


MODELS: Final = (
    _model("A30", (4, 4), "1g.6gb:1 2g.12gb:2 4g.24gb:4"),
    _model(
        "A100-40GB",
        (7, 8),
        "1g.5gb:1 1g.10gb:2 2g.10gb:2 3g.20gb:4 4g.20gb:4 7g.40gb:8",
        "A800-40GB",
    ),
    _model(
        "A100-80GB",
        (7, 8),
        "1g.10gb:1 1g.20gb:2 2g.20gb:2 3g.40gb:4 4g.40gb:4 7g.80gb:8",
        "A800-80GB",
    ),
    _model(
        "H100-80GB",
        (7, 8),
        "1g.10gb:1 1g.20gb:2 2g.20gb:2 3g.40gb:4 4g.40gb:4 7g.80gb:8",
        "H100-PCIe",
    ),
    _model(
        "H100-94GB",
        (7, 8),
        "1g.12gb:1 1g.24gb:2 2g.24gb:2 3g.47gb:4 4g.47gb:4 7g.94gb:8",
        "H100-NVL",
    ),
    _model(
        "H100-96GB",
        (7, 8),
        "1g.12gb:1 1g.24gb:2 2g.24gb:2 3g.48gb:4 4g.48gb:4 7g.96gb:8",
        "GH200-480GB",
    ),
    _model("H200", (7, 8), "1g.18gb:1 1g.35gb:2 2g.35gb:2 3g.71gb:4 4g.71gb:4 7g.141gb:8"),
    _model("B200", (7, 8), "1g.23gb:1 1g.45gb:2 2g.45gb:2 3g.90gb:4 4g.90gb:4 7g.180gb:8"),
    _model("RTX-PRO-5000-Blackwell", (4, 4), "1g.12gb:1 4g.48gb:4"),
    _model("RTX-PRO-6000-Blackwell", (4, 4), "1g.24gb:1 2g.48gb:2 4g.96gb:4"),
)
"""The cards by name. Not read were the tables of GB200, B300, GB300, H20 and RTX PRO 4500."""


def find(text: str) -> list[Model]:
    """The models that a user's text or a product name can mean: none, one, or several.

    Args:
        text: ``A100-40GB``, ``H200`` or the label ``nvidia.com/gpu.product`` of a node,
            ``NVIDIA-A100-SXM4-40GB``.
    """
    words = _words(text)
    exact = [model for model in MODELS if any(_words(name) <= words for name in model.also)]
    return exact or [model for model in MODELS if words and words <= _words(model.name)]


def _words(text: str) -> frozenset[str]:
    return frozenset(word for word in re.split(r"[\s-]+", text.casefold()) if word)


def charged(
    name: str, among: Collection[Model] = (), *, up: bool = True
) -> tuple[int, int] | None:
    """Thousandths of compute and MiB of one instance; None for a name of unknown form.

    Cards divide differently: of those that have the profile, the largest share counts.

    Args:
        name: A profile as a resource name has it, such as ``1g.10gb`` or ``1g.10gb.me``.
        among: The models that the card can be of; empty for any.
        up: Thousandths are rounded up, and MiB are those in the name; else a container can
            count on both.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    slices, gib = int(match[1]), int(match[2])
    plain = f"{slices}g.{gib}gb"
    having = [m for m in among if plain in m.names] or [m for m in MODELS if plain in m.names]
    compute = min((model.compute for model in having), default=_SLICES)
    milli = slices * units.MILLI
    if not up:
        return min(units.MILLI, milli // compute), _least_mib(gib)
    return min(units.MILLI, units.ceil_div(milli, compute)), gib * 1024
