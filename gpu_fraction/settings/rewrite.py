"""The settings that decide how a pod is rewritten; webhook and command line share them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from gpu_fraction.domain import guard, units
from gpu_fraction.domain.admission import Rules
from gpu_fraction.domain.backends import BACKENDS, LEFT_TO, Backend, BackendConfig
from gpu_fraction.domain.guard import Policy
from gpu_fraction.domain.request import ISOLATIONS, PLACEMENTS, Bounds
from gpu_fraction.domain.sizes import CardSizes
from gpu_fraction.settings.option import (
    Option,
    SettingsError,
    Value,
    choice,
    integer,
    text,
    words,
)

__all__ = ["OPTIONS", "RewriteSettings", "rewrite_settings"]

_VERDICT: Final = choice("refuse", "allow")


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


OPTIONS: Final = (
    Option("backend", choice(*BACKENDS), "native", f"GPU stack: {', '.join(BACKENDS)}"),
    Option(
        "namespace_backends",
        _backends,
        (),
        "backends that a namespace may choose with the label gpu-fraction.dev/backend",
    ),
    Option("gpu_memory_mib", _memory, None, "memory of every GPU, MiB or a quantity (80Gi)"),
    Option(
        "gpu_memory_by_model",
        _sizes,
        {},
        "memory by GPU model: A100-80GB=81920,T4=15360",
    ),
    Option("runtime_class", text, None, "runtimeClassName for GPU pods that have none"),
    Option("env", _env, {}, "variables for GPU containers, where absent: NAME=VALUE,…"),
    Option(
        "default_placement", choice(*PLACEMENTS), Bounds().placement, f"{', '.join(PLACEMENTS)}"
    ),
    Option(
        "default_isolation", choice(*ISOLATIONS), Bounds().isolation, f"{', '.join(ISOLATIONS)}"
    ),
    Option("max_cards", integer(1, 1024), Bounds().max_cards, "GPUs that one container may ask"),
    Option("max_memory", _memory, Bounds().max_memory_mib, "memory that one GPU may have, MiB"),
    Option("policy_privileged", _VERDICT, "refuse", "privileged containers in GPU pods"),
    Option("policy_host_devices", _VERDICT, "refuse", "the node's /dev mounted in GPU pods"),
    Option("policy_node_name", _VERDICT, "refuse", "GPU pods with a preset spec.nodeName"),
    Option("policy_other_scheduler", _VERDICT, "refuse", "GPU pods that name another scheduler"),
    Option(
        "left_to_schedulers",
        words,
        LEFT_TO,
        "schedulers whose pods are not touched, none of a configured backend",
    ),
)


@dataclass(frozen=True, slots=True)
class RewriteSettings:
    """What decides on a pod: the rules, and a backend by name.

    Attributes:
        rules: For ``domain.admission``.
        backends: Every backend that a pod may be rendered for, by name.
        default_backend: The one for namespaces that choose none.
    """

    rules: Rules
    backends: Mapping[str, Backend]
    default_backend: str

    def backend_for(self, wanted: str | None) -> Backend:
        """The namespace's choice where it is allowed, else the default."""
        if wanted is not None and wanted in self.backends:
            return self.backends[wanted]
        return self.backends[self.default_backend]


def rewrite_settings(values: Mapping[str, Value]) -> RewriteSettings:
    """The parsed options, as the domain takes them.

    Raises:
        SettingsError: pods of a configured backend's scheduler are to be left alone.
    """
    get: dict[str, Any] = {name: value.value for name, value in values.items()}
    config = BackendConfig(
        card_sizes=CardSizes(get["gpu_memory_mib"], get["gpu_memory_by_model"]),
        runtime_class=get["runtime_class"],
        env=get["env"],
    )
    names = dict.fromkeys((get["backend"], *get["namespace_backends"]))
    return RewriteSettings(
        rules=Rules(
            bounds=Bounds(
                max_cards=get["max_cards"],
                max_memory_mib=get["max_memory"],
                placement=get["default_placement"],
                isolation=get["default_isolation"],
            ),
            policy=Policy(
                privileged=get["policy_privileged"],
                host_devices=get["policy_host_devices"],
                node_name=get["policy_node_name"],
                other_scheduler=get["policy_other_scheduler"],
            ),
            left_to=_left_to(values, names),
        ),
        backends={name: BACKENDS[name](config) for name in names},
        default_backend=get["backend"],
    )


def _left_to(values: Mapping[str, Value], names: Iterable[str]) -> frozenset[str]:
    """Schedulers whose pods are left alone; a default gives way to a configured backend."""
    given = values["left_to_schedulers"]
    owners = {BACKENDS[name].scheduler: name for name in names}
    clashes = [scheduler for scheduler in given.value if scheduler in owners]
    if clashes and given.source != "default":
        raise SettingsError(
            f"left_to_schedulers ({given.source}) names {scheduler}, which places the pods of "
            f"{_source(values, owners[scheduler])}; leave one of the two out"
            for scheduler in clashes
        )
    return frozenset(given.value) - frozenset(clashes)


def _source(values: Mapping[str, Value], backend: str) -> str:
    """The setting that configures a backend, and where it was given."""
    name = "backend" if values["backend"].value == backend else "namespace_backends"
    return f"{name} {backend} ({values[name].source})"
