"""Metrics of the templates of claims, and of pods that the scheduler overlooked."""

from prometheus_client import CollectorRegistry, Counter


class TemplateMetrics:
    """Writes of templates.

    Attributes:
        made: Templates created, those restored included.
        removed: Templates deleted.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register with ``registry``."""
        self.made = Counter(
            "gpu_fraction_claim_templates_made",
            "ResourceClaimTemplates created, those restored included",
            registry=registry,
        )
        self.removed = Counter(
            "gpu_fraction_claim_templates_removed",
            "ResourceClaimTemplates deleted because nothing used them, or replaced",
            registry=registry,
        )


class OverlookedMetrics:
    """Pods that waited although there was room.

    Attributes:
        shown: Changes of the DeviceClass that made the scheduler look again.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register with ``registry``."""
        self.shown = Counter(
            "gpu_fraction_claims_looks_again",
            "Changes of the DeviceClass that made the scheduler look again at overlooked pods",
            registry=registry,
        )
