"""docs/metrics.md lists every metric of every daemon."""

import re
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric

from gpu_fraction.certs.reporting import Reporter
from gpu_fraction.certs.settings import Installation
from gpu_fraction.claims.metrics import OverlookedMetrics, TemplateMetrics
from gpu_fraction.kube.metrics import KubeMetrics
from gpu_fraction.node_daemon.metrics import Metrics, SliceGauges
from gpu_fraction.node_daemon.usage_metrics import UsageGauges
from gpu_fraction.quota import metrics as quota_metrics
from gpu_fraction.scheduler.metrics import ExtenderMetrics, StateCollector
from gpu_fraction.scheduler.state import ClusterState
from gpu_fraction.webhook import endpoints

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


def names(families: Iterable[Metric]) -> set[str]:
    """The names that Prometheus shows for metrics."""
    return {f.name + ("_total" if f.type == "counter" else "") for f in families}


def test_the_page_lists_the_metrics_that_the_code_registers() -> None:
    """Neither more nor fewer, by their full names."""
    registry = CollectorRegistry()
    KubeMetrics(registry)
    endpoints.AdmissionMetrics(registry)
    quota_metrics.AdmissionMetrics(registry)
    quota_metrics.ControllerMetrics(registry)
    TemplateMetrics(registry)
    OverlookedMetrics(registry)
    Reporter(registry, Installation())
    ExtenderMetrics(registry)
    StateCollector(registry, ClusterState(), lambda: 0.0)
    Metrics(registry)
    no_cards: Any = SimpleNamespace(
        inventory=SimpleNamespace(value=None), ledger=SimpleNamespace(usage=dict)
    )
    registry.register(SliceGauges(no_cards))
    registered = names(registry.collect()) | names(UsageGauges(no_cards, no_cards).describe())
    listed = re.findall(r"^\| `(gpu_fraction_\w+)` \|", PAGE.read_text(), re.MULTILINE)
    assert len(listed) == len(set(listed))
    assert set(listed) == registered
