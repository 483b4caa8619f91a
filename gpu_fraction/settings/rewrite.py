"""The settings that decide how a pod is rewritten; webhook and command line share them."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final, get_args

from gpu_fraction.domain import guard, units
from gpu_fraction.domain.admission import Rules
from gpu_fraction.domain.backends import BACKENDS, LEFT_TO, Backend, BackendConfig
from gpu_fraction.domain.guard import Policy, Verdict
from gpu_fraction.domain.request import Bounds, Isolation, Placement
from gpu_fraction.domain.sizes import CardSizes
from gpu_fraction.settings.declaration import group, setting
from gpu_fraction.settings.parsers import choice, integer, text, words

_BOUNDS: Final = Bounds()
_VERDICT: Final = choice(*get_args(Verdict))


def _memory(given: str) -> int:
    try:
        return units.parse_memory_mib(given)[0]
    except units.UnitError as e:
        raise ValueError(f"allowed: {e.allowed}") from e


def _pairs(given: str) -> dict[str, str]:
    """NAME=VALUE pairs; a word without ``=`` belongs to the value before it."""
    pairs: dict[str, str] = {}
    key = ""
    for word in words(given):
        left, equals, right = word.partition("=")
        if equals and left.strip():
            key = left.strip()
            pairs[key] = right.strip()
        elif key and not equals:
            pairs[key] += f",{word}"
        else:
            raise ValueError("allowed: NAME=VALUE pairs separated by commas")
    return pairs


def _env(given: str) -> dict[str, str]:
    pairs = _pairs(given)
    for name in pairs:
        if guard.is_reserved(name):
            raise ValueError(
                f"{name} chooses GPUs, which the system does; allowed: other NAME=VALUE pairs"
            )
    return pairs


def _sizes(given: str) -> dict[str, int]:
    return {model: _memory(size) for model, size in _pairs(given).items()}


def _backends(given: str) -> tuple[str, ...]:
    one = choice(*BACKENDS)
    return tuple(one(word) for word in words(given))


@dataclass(frozen=True, slots=True)
class CardSizeSettings:
    """The memory of GPUs whose nodes do not publish it."""

    gpu_memory_mib: int | None = setting(_memory, None, "memory of every GPU")
    gpu_memory_by_model: Mapping[str, int] = setting(
        _sizes, {}, "memory by GPU model, such as A100-80GB=81920,T4=15360"
    )

    @property
    def sizes(self) -> CardSizes:
        """The same, as the domain takes it."""
        return CardSizes(self.gpu_memory_mib, self.gpu_memory_by_model)


@dataclass(frozen=True)
class RewriteSettings:
    """What decides on a pod; webhook and command line share it."""

    backend: str = setting(choice(*BACKENDS), "native", "GPU stack")
    namespace_backends: tuple[str, ...] = setting(
        _backends,
        (),
        "backends that a namespace may choose with the label gpu-fraction.dev/backend",
    )
    cards: CardSizeSettings = group(CardSizeSettings)
    runtime_class: str | None = setting(text, None, "runtimeClassName for GPU pods that have none")
    env: Mapping[str, str] = setting(_env, {}, "variables for GPU containers, where absent")
    default_placement: Placement = setting(
        choice(*get_args(Placement)), _BOUNDS.placement, "placement of pods that name none"
    )
    default_isolation: Isolation = setting(
        choice(*get_args(Isolation)), _BOUNDS.isolation, "isolation of pods that name none"
    )
    max_cards: int = setting(integer(1, 1024), _BOUNDS.max_cards, "most GPUs of one container")
    max_memory_mib: int = setting(
        _memory, _BOUNDS.max_memory_mib, "most memory of one GPU", name="max_memory"
    )
    policy_privileged: Verdict = setting(_VERDICT, "refuse", "privileged containers in GPU pods")
    policy_host_devices: Verdict = setting(_VERDICT, "refuse", "the node's /dev in GPU pods")
    policy_node_name: Verdict = setting(_VERDICT, "refuse", "GPU pods with a preset spec.nodeName")
    policy_other_scheduler: Verdict = setting(
        _VERDICT, "refuse", "GPU pods that name another scheduler"
    )
    left_to_schedulers: tuple[str, ...] = setting(
        words, LEFT_TO, "schedulers whose pods are not touched, none of a configured backend"
    )

    def __post_init__(self) -> None:
        """Refuse to leave alone what is rewritten; a default gives way to a configured backend."""
        if self.left_to_schedulers == LEFT_TO:
            return
        for scheduler in self.left_to_schedulers:
            if (owner := self._owners.get(scheduler)) is not None:
                by = "--backend" if owner == self.backend else "--namespace-backends"
                raise ValueError(
                    f"--left-to-schedulers names {scheduler}, which places the pods of {by} "
                    f"{owner}; leave one of the two out"
                )

    @property
    def _owners(self) -> dict[str | None, str]:
        """The configured backends by the schedulers that place their pods."""
        names = dict.fromkeys((self.backend, *self.namespace_backends))
        return {BACKENDS[name].scheduler: name for name in names}

    @cached_property
    def rules(self) -> Rules:
        """For ``domain.admission``."""
        return Rules(
            bounds=Bounds(
                max_cards=self.max_cards,
                max_memory_mib=self.max_memory_mib,
                placement=self.default_placement,
                isolation=self.default_isolation,
            ),
            policy=Policy(
                privileged=self.policy_privileged,
                host_devices=self.policy_host_devices,
                node_name=self.policy_node_name,
                other_scheduler=self.policy_other_scheduler,
            ),
            left_to=frozenset(self.left_to_schedulers) - self._owners.keys(),
        )

    @cached_property
    def backends(self) -> Mapping[str, Backend]:
        """Every backend that a pod may be rendered for, by name."""
        config = BackendConfig(self.cards.sizes, self.runtime_class, self.env)
        names = dict.fromkeys((self.backend, *self.namespace_backends))
        return {name: BACKENDS[name](config) for name in names}

    def backend_for(self, wanted: str | None) -> Backend:
        """The namespace's choice where it is allowed, else the default."""
        if wanted is not None and wanted in self.backends:
            return self.backends[wanted]
        return self.backends[self.backend]
