"""Settings of quotas, for the webhook and for the controller."""

from dataclasses import dataclass
from typing import Final, Literal

from gpu_fraction.domain import amounts
from gpu_fraction.domain.keys import SYSTEM_NAMESPACE
from gpu_fraction.kube.election import LeaseTimings
from gpu_fraction.quota import admission
from gpu_fraction.quota.controller import ControllerSettings
from gpu_fraction.quota.decision import ANY, Required
from gpu_fraction.quota.ledger import RESERVATION_S
from gpu_fraction.serving.logs import LEVELS
from gpu_fraction.settings.declaration import setting
from gpu_fraction.settings.parsers import choice, integer, seconds, text, word_set, words

LEASE: Final = "gpu-fraction-controller"

_KEY: Final = choice(ANY, *amounts.KEYS)


def _keys(given: str) -> frozenset[str]:
    return frozenset(_KEY(word) for word in words(given))


@dataclass(frozen=True, slots=True)
class _SharedOptions:
    """The same for webhook and controller."""

    quota_ttl_s: float = setting(
        seconds(1, 3600),
        RESERVATION_S,
        "end a reservation without a pod after this time; at least 41 in production",
    )
    hand_written_claims: Literal["refuse", "charge"] = setting(
        choice("refuse", "charge"),
        "refuse",
        "refuse or charge ResourceClaims of our classes that somebody wrote; the same for webhook "
        "and controller (deploy/claims-charge)",
    )


@dataclass(frozen=True, slots=True)
class AdmissionOptions(_SharedOptions):
    """How pods are admitted."""

    require_quota: frozenset[str] = setting(
        _keys,
        frozenset(),
        "refuse GPU pods in namespaces without a GPUQuota; with a list (cores,memory,gpus,pods), "
        "where none limits what they use",
        bare=ANY,
    )
    require_quota_priority_classes: frozenset[str] = setting(
        word_set,
        frozenset(),
        "priority classes whose GPU pods need a GPUQuota that selects the class",
    )

    @property
    def settings(self) -> admission.Settings:
        """The same, as admission takes it."""
        required = Required(self.require_quota, self.require_quota_priority_classes)
        return admission.Settings(required=required, ttl_s=self.quota_ttl_s)


@dataclass(frozen=True, slots=True)
class ControllerOptions(_SharedOptions):
    """How the controller runs."""

    quota_resync_s: float = setting(
        seconds(1, 86400), 300.0, "count every namespace again after this time"
    )
    lease_duration_s: int = setting(
        integer(2, 3600), 15, "another replica may lead when the leader is silent for this time"
    )
    lease_name: str = setting(text, LEASE, "the Lease that elects the active replica")
    lease_namespace: str = setting(text, SYSTEM_NAMESPACE, "namespace of that Lease")
    host: str = setting(text, "0.0.0.0", "address of /metrics, /livez and /readyz")  # noqa: S104 - in a pod
    port: int = setting(integer(0, 65535), 8080, "port of /metrics, /livez and /readyz, 0 for any")
    log_level: str = setting(choice(*LEVELS), "info", "minimum level of log lines")

    @property
    def counting(self) -> ControllerSettings:
        """The settings of the count."""
        return ControllerSettings(ttl_s=self.quota_ttl_s, resync_s=self.quota_resync_s)

    @property
    def lease(self) -> LeaseTimings:
        """Durations of the election, in the proportions of client-go's 15, 10 and 2 seconds."""
        duration_s = self.lease_duration_s
        return LeaseTimings(duration_s, duration_s * 2 / 3, duration_s * 2 / 15)
