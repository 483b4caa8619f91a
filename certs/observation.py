"""What the planner is told about the cluster, besides the Secret."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from certs.bundle import Bundle

__all__ = ["Replica", "Target", "TargetKind"]


class TargetKind(StrEnum):
    """The kinds of objects that carry a caBundle."""

    MUTATING = "MutatingWebhookConfiguration"
    VALIDATING = "ValidatingWebhookConfiguration"
    CRD = "CustomResourceDefinition"


@dataclass(frozen=True, slots=True)
class Target:
    """One object of ours that exists and carries caBundles.

    Attributes:
        kind: What it is.
        name: Its name.
        bundles: The caBundle of each webhook in it; none where it has no webhook.
        resource_version: Of the reading.
    """

    kind: TargetKind
    name: str
    bundles: tuple[Bundle, ...]
    resource_version: str = ""


@dataclass(frozen=True, slots=True)
class Replica:
    """One process that serves, as it says itself.

    Attributes:
        name: Its name.
        issuer: Fingerprint of the CA whose leaf it serves; empty before its first.
        leaf_not_after: The end of that leaf, UTC.
    """

    name: str
    issuer: str = ""
    leaf_not_after: datetime | None = None

    def serves(self, now: datetime) -> bool:
        """Whether it serves a leaf that has not expired."""
        return bool(self.issuer) and self.leaf_not_after is not None and now < self.leaf_not_after
