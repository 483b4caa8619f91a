"""Metrics of the templates of claims."""

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
