"""Parses the user's annotations into one ``Request``, or into all their problems."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, cast

from gpu_fraction.domain import frameworks, keys, units
from gpu_fraction.domain.containers import Containers
from gpu_fraction.domain.pod import Pod
from gpu_fraction.domain.problems import MAX_SHOWN, Problem, nearest, quote
from gpu_fraction.domain.request import (
    ISOLATIONS,
    PLACEMENTS,
    Bounds,
    Isolation,
    Placement,
    Refused,
    Request,
    Slice,
    annotation_path,
)

MAX_CHOICES: Final = 64
"""Models or UUIDs in one annotation: chosen, more than the cards of any node."""

MAX_KEYS: Final = 64
"""GPU annotations on one pod: chosen, more than a pod has containers.

An explanation of each faulty one costs time, and a request body has room for 200,000.
"""

_KNOWN: Final = frozenset((*keys.USER_KEYS, *keys.SYSTEM_KEYS))
_SUGGESTED: Final = (*keys.USER_KEYS, keys.CONTAINER_PREFIX + "<name>")
_MODEL: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+/-]{0,62}", re.ASCII)
_UUID: Final = re.compile(r"(GPU|MIG)-[0-9A-Za-z][0-9A-Za-z/-]{0,79}", re.ASCII)


def asks(annotations: Mapping[str, str]) -> bool:
    """True where any GPU annotation is present."""
    return any(keys.is_ours(key) for key in annotations)


def parse(pod: Pod, bounds: Bounds) -> Request | None:
    """Parse every user annotation of the pod; None where it has none.

    Raises:
        Refused: with every problem found, not just the first.
    """
    given = {
        key: value
        for key, value in pod.annotations().items()
        if keys.is_ours(key) and key not in keys.SYSTEM_KEYS
    }
    if not given:
        return None
    if len(given) > MAX_KEYS:
        message = (
            f"{len(given)} GPU annotations (gpu-*, {keys.PREFIX}*); allowed: at most {MAX_KEYS}"
        )
        raise Refused([Problem("metadata.annotations", message)])
    reader = _Reader(given, Containers.of(pod), bounds)
    request = reader.read()
    if request is None:
        raise Refused(reader.problems)
    return request


@dataclass(slots=True)
class _Reader:
    """One pass over a pod's annotations, collecting problems."""

    given: Mapping[str, str]
    containers: Containers
    bounds: Bounds
    problems: list[Problem] = field(default_factory=list)

    def read(self) -> Request | None:
        self._unknown()
        slices = [s for s in (self._pod_slice(), *self._container_slices()) if s is not None]
        models, not_models = self._models()
        uuids = self._uuids(max((s.cards for s in slices), default=0))
        placement = self._choice(keys.PLACEMENT, PLACEMENTS, self.bounds.placement)
        isolation = self._choice(keys.ISOLATION, ISOLATIONS, self.bounds.isolation)
        # Read from the pod by those who write the variables: placement does not depend on it.
        self._choice(keys.FRAMEWORK_ENV, (frameworks.OFF,), "")
        self._twice(slices)
        if not slices and not self.problems:
            given = next(iter(self.given))
            self._refuse(
                given, f"does not request a GPU by itself; add {keys.FRACTION} or {keys.MEMORY}"
            )
        if self.problems:
            return None
        if len(slices) > 1:
            order = {name: i for i, name in enumerate(self.containers)}
            slices.sort(key=lambda s: order[s.container])
        return Request(
            slices=tuple(slices),
            models=models,
            not_models=not_models,
            uuids=uuids,
            placement=cast("Placement", placement),
            isolation=cast("Isolation", isolation),
        )

    def _refuse(self, key: str, message: str) -> None:
        if key not in _KNOWN:
            name = key.removeprefix(keys.CONTAINER_PREFIX)
            key = keys.CONTAINER_PREFIX + quote(name)[1:-1]
        self.problems.append(Problem(annotation_path(key), message))

    def _will_be_shown(self) -> bool:
        return len(self.problems) < MAX_SHOWN

    def _number(self, key: str, parser: Callable[[str], int]) -> int | None:
        """The annotation as a number; None where it is absent or, with a problem, not a number."""
        text = self.given.get(key)
        if text is None:
            return None
        try:
            return parser(text)
        except units.UnitError as e:
            self._refuse(key, f"{quote(text)} is {e.reason}; allowed: {e.allowed}")
            return None

    def _unknown(self) -> None:
        for key in self.given:
            if key in _KNOWN or not keys.is_ours(key) or key.startswith(keys.CONTAINER_PREFIX):
                continue
            meant = nearest(key, _SUGGESTED, keys.PREFIX) if self._will_be_shown() else ""
            message = f"not a known annotation{meant}; known: {', '.join(_SUGGESTED)}"
            self.problems.append(Problem(annotation_path(quote(key)[1:-1]), message))

    def _pod_slice(self) -> Slice | None:
        """The slice of ``gpu-fraction``, ``gpu-memory`` and their companions."""
        fraction = self._number(keys.FRACTION, units.parse_fraction_milli)
        memory_mib = self._number(keys.MEMORY, lambda text: units.parse_memory_mib(text)[0])
        core_milli = self._number(keys.CORES, units.parse_share_milli)
        cards = self._number(keys.NUM_DEVICES, units.parse_count)
        container = self._target()
        if keys.FRACTION not in self.given and keys.MEMORY not in self.given:
            for key in (keys.CORES, keys.NUM_DEVICES, keys.CONTAINER_NAME):
                if key in self.given:
                    self._refuse(
                        key,
                        f"has no effect without {keys.FRACTION} or {keys.MEMORY}; add one of them",
                    )
            return None
        if container is None:
            if keys.CONTAINER_NAME not in self.given:
                key = keys.FRACTION if keys.FRACTION in self.given else keys.MEMORY
                self._refuse(key, "no container can get it; add one to spec.containers")
            return None
        if fraction is not None and fraction > units.MILLI and cards is not None:
            self._refuse(
                keys.NUM_DEVICES,
                f"conflicts with {keys.FRACTION} {quote(self.given[keys.FRACTION])}, which "
                "already counts GPUs; remove one of the two, or use a share of at most 1",
            )
            return None
        cards, share = self._cards(fraction, cards)
        self._within(
            keys.NUM_DEVICES if self.given.get(keys.NUM_DEVICES) else keys.FRACTION, cards
        )
        if memory_mib is not None and memory_mib > self.bounds.max_memory_mib:
            self._refuse(
                keys.MEMORY,
                f"{quote(self.given[keys.MEMORY])} is {memory_mib} MiB, more than any GPU has; "
                "allowed: at most "
                f"{units.format_memory(self.bounds.max_memory_mib)} on each GPU",
            )
        if share is None and memory_mib is None:
            return None
        return Slice(
            container=container,
            cards=cards,
            core_milli=core_milli if core_milli is not None else share,
            memory_mib=memory_mib,
            memory_milli=share if memory_mib is None else None,
        )

    @staticmethod
    def _cards(fraction: int | None, cards: int | None) -> tuple[int, int | None]:
        """The number of cards, and the share of each in thousandths."""
        if fraction is not None and fraction > units.MILLI:
            return fraction // units.MILLI, units.MILLI
        return cards or 1, fraction

    def _within(self, key: str, cards: int) -> None:
        if cards > self.bounds.max_cards:
            self._refuse(
                key,
                f"{quote(self.given[key])} is more GPUs than any node has; "
                f"allowed: at most {self.bounds.max_cards}",
            )

    def _target(self) -> str | None:
        name = self.given.get(keys.CONTAINER_NAME)
        if name is None:
            return self.containers.default()
        return name if self._holds(keys.CONTAINER_NAME, name) else None

    def _holds(self, key: str, name: str) -> bool:
        """Whether the named container can get a GPU; reports a problem where not."""
        refusal = self.containers.refusal(name, suggest=self._will_be_shown())
        if refusal is not None:
            self._refuse(key, refusal)
        return refusal is None

    def _container_slices(self) -> Iterable[Slice]:
        """The slices of ``gpu-fraction.dev/container.<name>``."""
        for key in self.given:
            if not key.startswith(keys.CONTAINER_PREFIX):
                continue
            name = key.removeprefix(keys.CONTAINER_PREFIX)
            holds = self._holds(key, name)
            fraction = self._number(key, units.parse_fraction_milli)
            if fraction is None or not holds:
                continue
            cards, share = self._cards(fraction, None)
            self._within(key, cards)
            yield Slice(name, cards, core_milli=share, memory_mib=None, memory_milli=share)

    def _twice(self, slices: list[Slice]) -> None:
        """Report containers with both a pod-level share and one of their own."""
        if len(slices) < 2:
            return
        counts = Counter(s.container for s in slices)
        for name in sorted(name for name, count in counts.items() if count > 1):
            self._refuse(
                keys.CONTAINER_PREFIX + name,
                f"container {quote(name)} already gets {keys.FRACTION} or {keys.MEMORY} of the "
                "pod; remove one of the two",
            )

    def _list(self, key: str) -> Sequence[str]:
        text = self.given.get(key)
        if text is None:
            return ()
        items = list(dict.fromkeys(item.strip() for item in text.split(",", MAX_CHOICES)))
        if len(items) > MAX_CHOICES:
            self._refuse(
                key, f"lists more than {MAX_CHOICES} items; allowed: at most {MAX_CHOICES}"
            )
            return ()
        return items

    def _models(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        items = self._list(keys.MODEL)
        if not items:
            return (), ()
        excluded = [item[1:].strip() for item in items if item.startswith("!")]
        wanted = [item for item in items if not item.startswith("!")]
        allowed = "allowed: models (A100,H100) or excluded models (!T4,!P4)"
        for name in (*wanted, *excluded):
            if not _MODEL.fullmatch(name):
                self._refuse(keys.MODEL, f"{quote(name)} is not a GPU model; {allowed}")
        if wanted and excluded:
            self._refuse(
                keys.MODEL,
                f"{quote(self.given[keys.MODEL])} mixes allowed and excluded models; "
                f"{allowed}, not both",
            )
        return tuple(wanted), tuple(excluded)

    def _uuids(self, cards: int) -> tuple[str, ...]:
        items = self._list(keys.UUID)
        for item in items:
            if not _UUID.fullmatch(item):
                self._refuse(
                    keys.UUID,
                    f"{quote(item)} is not a GPU UUID; allowed: GPU-<id> or MIG-<id> as "
                    "nvidia-smi -L prints them, separated by commas",
                )
        if items and len(items) < cards:
            self._refuse(
                keys.UUID,
                f"lists {len(items)} GPU(s), but a container requests {cards}; allowed: "
                f"at least {cards}",
            )
        return tuple(items)

    def _choice(self, key: str, allowed: tuple[str, ...], default: str) -> str:
        text = self.given.get(key)
        if text is None:
            return default
        if text not in allowed:
            self._refuse(
                key,
                f"{quote(text)} is not a known value{nearest(text, allowed)}; "
                f"allowed: {', '.join(allowed)}",
            )
        return text
