"""Limits on GPU models, as a namespace's GPUQuotas set them."""

from collections.abc import Mapping
from typing import Any

import msgspec

from gpu_fraction.kube.store import Change
from gpu_fraction.quota.model_limits import ModelLimits, WatchedQuota
from gpu_fraction.quota.wire import QuotaMeta, SpecWire


class FixedLimits(ModelLimits):
    """Limits that nobody has to wait for."""

    def unsynced(self) -> str | None:
        """They are here."""
        return None

    def set(self, name: str, models: Mapping[str, Mapping[str, Any]], **spec: Any) -> None:
        """A quota of the namespace ``team``, in place of the one of that name."""
        self.changed(Change(None, quota(name, models, **spec)))


def quota(name: str, models: Mapping[str, Mapping[str, Any]], **spec: Any) -> WatchedQuota:
    """A quota of the namespace ``team``, as in YAML."""
    wire = msgspec.convert({"hard": {"models": models}, **spec}, SpecWire)
    return WatchedQuota(metadata=QuotaMeta(name=name, namespace="team"), spec=wire)


def limits(models: Mapping[str, Mapping[str, Any]], **spec: Any) -> FixedLimits:
    """One quota of the namespace ``team``, named ``budget``."""
    made = FixedLimits()
    made.set("budget", models, **spec)
    return made
