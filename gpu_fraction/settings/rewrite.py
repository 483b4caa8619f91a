"""The settings of the rewriting of pods."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, make_dataclass, replace
from functools import cached_property
from typing import Any, Final, get_args

from gpu_fraction.domain import guard, keys, units
from gpu_fraction.domain.admission import Rules
from gpu_fraction.domain.backends import BACKENDS, LEFT_TO, SETTINGS, Backend, BackendConfig
from gpu_fraction.domain.frameworks import Switch
from gpu_fraction.domain.guard import Permission, Policy
from gpu_fraction.domain.patch import DEFAULT_SCHEDULER
from gpu_fraction.domain.pod import Pod
from gpu_fraction.domain.problems import Problem, nearest, quote
from gpu_fraction.domain.request import (
    Bounds,
    Isolation,
    Placement,
    Refused,
    annotation_path,
)
from gpu_fraction.domain.sizes import CardSizes
from gpu_fraction.domain.stack import StackSetting
from gpu_fraction.settings.declaration import group, setting
from gpu_fraction.settings.parsers import boolean, choice, integer, text, words

_BOUNDS: Final = Bounds()
_PERMISSION: Final = choice(*get_args(Permission))


def _memory(given: str) -> int:
    try:
        return units.parse_memory_mib(given)[0]
    except units.UnitError as e:
        raise ValueError(f"allowed: {e.allowed}") from e


def _pairs(given: str) -> dict[str, str]:
    """NAME=VALUE pairs; a word without ``=`` continues the value before it."""
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
                f"{name} selects GPUs and is reserved; allowed: other NAME=VALUE pairs"
            )
    return pairs


def _sizes(given: str) -> dict[str, int]:
    return {model: _memory(size) for model, size in _pairs(given).items()}


def _backends(given: str) -> tuple[str, ...]:
    one = choice(*BACKENDS)
    return tuple(one(word) for word in words(given))


def _parser(one: StackSetting[Any]) -> Callable[[str], Any]:
    if isinstance(one.allowed, range):
        return integer(one.allowed.start, one.allowed.stop - 1)
    return text if one.allowed is None else choice(*one.allowed)


def _own(name: str, *, charged: bool) -> Any:
    """A dataclass of settings that single stacks have."""
    return make_dataclass(
        name,
        [
            (one.name, Any, setting(_parser(one), one.default or None, one.help))
            for one in SETTINGS
            if one.charged == charged
        ],
        frozen=True,
    )


_Charged: Final = _own("_Charged", charged=True)
_Written: Final = _own("_Written", charged=False)


@dataclass(frozen=True, slots=True)
class CostSettings:
    """What the cost of a pod depends on: GPUs of unknown memory, and units of single stacks."""

    gpu_memory_mib: int | None = setting(_memory, None, "memory of every GPU")
    gpu_memory_by_model: Mapping[str, int] = setting(
        _sizes, {}, "memory by GPU model, such as A100-80GB=81920,T4=15360"
    )

    own: Any = group(_Charged)

    @property
    def config(self) -> BackendConfig:
        """The settings as the domain's type."""
        sizes = CardSizes(self.gpu_memory_mib, self.gpu_memory_by_model)
        return BackendConfig(sizes, own=asdict(self.own))


@dataclass(frozen=True, slots=True)
class StackSettings:
    """What the pods of every stack depend on, for commands that read or write several."""

    costs: CostSettings = group(CostSettings)
    own: Any = group(_Written)

    @property
    def config(self) -> BackendConfig:
        """The settings as the domain's type."""
        costs = self.costs.config
        return replace(costs, own={**costs.own, **asdict(self.own)})


@dataclass(frozen=True)
class RewriteSettings:
    """The settings for pods; webhook and command line share them."""

    backend: str = setting(choice(*BACKENDS), "native", "GPU stack of the cluster")
    namespace_backends: tuple[str, ...] = setting(
        _backends,
        (),
        "backends that namespaces may select with the label gpu-fraction.dev/backend",
    )
    allow_pod_backend: bool = setting(
        boolean,
        False,
        "let pods select a configured backend with the annotation gpu-fraction.dev/backend",
    )
    stacks: StackSettings = group(StackSettings)
    runtime_class: str | None = setting(text, None, "runtimeClassName for GPU pods without one")
    framework_env: Switch = setting(
        choice(*get_args(Switch)),
        "on",
        "whether frameworks learn their part of a GPU's memory, where a stack leaves its total",
    )
    env: Mapping[str, str] = setting(_env, {}, "variables to add to GPU containers")
    default_placement: Placement = setting(
        choice(*get_args(Placement)), _BOUNDS.placement, "placement of pods without the annotation"
    )
    default_isolation: Isolation = setting(
        choice(*get_args(Isolation)), _BOUNDS.isolation, "isolation of pods without the annotation"
    )
    max_cards: int = setting(integer(1, 1024), _BOUNDS.max_cards, "maximum GPUs per container")
    max_memory_mib: int = setting(
        _memory, _BOUNDS.max_memory_mib, "maximum memory request on one GPU", name="max_memory"
    )
    policy_privileged: Permission = setting(
        _PERMISSION, "refuse", "privileged containers in GPU pods"
    )
    policy_host_devices: Permission = setting(
        _PERMISSION, "refuse", "hostPath volumes with /dev in GPU pods"
    )
    policy_node_name: Permission = setting(
        _PERMISSION, "refuse", "GPU pods with a preset spec.nodeName"
    )
    policy_other_scheduler: Permission = setting(
        _PERMISSION, "refuse", "GPU pods with another scheduler"
    )
    left_to_schedulers: tuple[str, ...] = setting(
        words, LEFT_TO, "schedulers whose pods are left unchanged; none of a configured backend"
    )

    def __post_init__(self) -> None:
        """Refuse schedulers of configured backends; the default list excludes them silently."""
        if self.left_to_schedulers == LEFT_TO:
            return
        if DEFAULT_SCHEDULER in self.left_to_schedulers:
            raise ValueError(
                f"--left-to-schedulers contains {DEFAULT_SCHEDULER}, the scheduler of every pod "
                f"that names none, which --backend {self.backend} has to change; remove it"
            )
        for scheduler in self.left_to_schedulers:
            if (owner := self._owners.get(scheduler)) is not None:
                by = "--backend" if owner == self.backend else "--namespace-backends"
                raise ValueError(
                    f"--left-to-schedulers contains {scheduler}, the scheduler of {by} {owner}; "
                    "remove one of the two"
                )

    @property
    def _owners(self) -> dict[str | None, str]:
        names = dict.fromkeys((self.backend, *self.namespace_backends))
        return {BACKENDS[name].scheduler: name for name in names}

    @cached_property
    def rules(self) -> Rules:
        """The settings as ``domain.admission`` takes them."""
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
            left_to=frozenset(self.left_to_schedulers),
        )

    @cached_property
    def backends(self) -> Mapping[str, Backend]:
        """The configured backends by name."""
        config = replace(
            self.stacks.config,
            runtime_class=self.runtime_class,
            env=self.env,
            framework_env=self.framework_env,
        )
        names = dict.fromkeys((self.backend, *self.namespace_backends))
        return {name: BACKENDS[name](config) for name in names}

    def backend_for(self, wanted: str | None) -> Backend:
        """The backend that a namespace selects if it is allowed, else the default."""
        if wanted is not None and wanted in self.backends:
            return self.backends[wanted]
        return self.backends[self.backend]

    def backend_of(self, pod: Pod, namespace: str | None) -> Backend:
        """The backend of a new pod: what it selects itself, else what its namespace selects.

        Args:
            pod: The pod.
            namespace: The namespace's label; None where it has none.

        Raises:
            Refused: the pod selects a backend, and this is not allowed or not a configured one.
        """
        backend = self.backend_for(namespace)
        wanted = pod.annotations().get(keys.BACKEND)
        if wanted is None:
            return backend
        if not self.allow_pod_backend:
            told = (
                f"{quote(wanted)} is refused, pods do not select their backend here; remove it, "
                f"the pod's backend is {backend.name} (cluster setting allow_pod_backend)"
            )
        elif wanted not in self.backends:
            told = (
                f"{quote(wanted)} is not a backend of this cluster"
                f"{nearest(wanted, tuple(self.backends))}; allowed: {', '.join(self.backends)}"
            )
        else:
            return self.backends[wanted]
        raise Refused([Problem(annotation_path(keys.BACKEND), told)])
