"""Settings of quotas, for the webhook and for the controller."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from gpu_fraction.kube.election import LeaseTimings
from gpu_fraction.serving.logs import LEVELS
from gpu_fraction.settings.option import Option, Value, choice, integer, seconds, text, words
from quota import admission, amounts
from quota.controller import ControllerSettings
from quota.decision import ANY, Required
from quota.ledger import PROMISE_S

__all__ = [
    "ADMISSION_OPTIONS",
    "CONTROLLER_OPTIONS",
    "ControllerProcess",
    "admission_settings",
    "controller_process",
]


def _keys(given: str) -> tuple[str, ...]:
    one: Callable[[str], str] = choice(ANY, *amounts.KEYS)
    return tuple(one(word) for word in words(given))


_TTL: Final = Option(
    "quota_ttl",
    seconds(1, 3600),
    PROMISE_S,
    "drop the promise to a pod that never appears after, 41 or more in production, seconds",
)

ADMISSION_OPTIONS: Final = (
    Option(
        "require_quota",
        _keys,
        (),
        "refuse GPU pods in namespaces without a GPUQuota; with a list (cores,memory,gpus,pods), "
        "where none limits what they use",
        bare=ANY,
    ),
    Option(
        "require_quota_priority_classes",
        words,
        (),
        "priority classes whose GPU pods need a GPUQuota that selects the class",
    ),
    _TTL,
)

CONTROLLER_OPTIONS: Final = (
    _TTL,
    Option("quota_resync", seconds(1, 86400), 300.0, "count anew without a reason, seconds"),
    Option("lease_duration", integer(2, 3600), 15, "another replica may lead after, seconds"),
    Option("host", text, "0.0.0.0", "address of /metrics, /livez and /readyz"),  # noqa: S104 - in a pod
    Option("port", integer(0, 65535), 8080, "port of /metrics, /livez and /readyz, 0 for any"),
    Option("log_level", choice(*LEVELS), "info", f"{', '.join(LEVELS)}"),
)


def admission_settings(values: Mapping[str, Value]) -> admission.Settings:
    """The parsed options of admission."""
    return admission.Settings(
        required=Required(
            resources=frozenset(values["require_quota"].value),
            priority_classes=frozenset(values["require_quota_priority_classes"].value),
        ),
        ttl_s=values["quota_ttl"].value,
    )


@dataclass(frozen=True, slots=True)
class ControllerProcess:
    """How the controller runs.

    Attributes:
        counting: How it counts.
        lease: How replicas agree on one.
        host: Address of its own server.
        port: Port of its own server, 0 for any.
        log_level: One of debug, info, warning, error.
    """

    counting: ControllerSettings
    lease: LeaseTimings
    host: str
    port: int
    log_level: str


def controller_process(values: Mapping[str, Value]) -> ControllerProcess:
    """The parsed options of the controller."""
    get = {name: value.value for name, value in values.items()}
    duration_s = get["lease_duration"]
    return ControllerProcess(
        counting=ControllerSettings(ttl_s=get["quota_ttl"], resync_s=get["quota_resync"]),
        # The proportions of client-go's defaults, 15, 10 and 2 seconds.
        lease=LeaseTimings(duration_s, duration_s * 2 / 3, duration_s * 2 / 15),
        host=get["host"],
        port=get["port"],
        log_level=get["log_level"],
    )
