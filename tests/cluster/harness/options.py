"""What a test may ask of the cluster it is given."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Flags = Mapping[str, str]
"""Command-line flags without their dashes."""


@dataclass(frozen=True, slots=True)
class ControlPlaneOptions:
    """How a control plane differs from the usual one.

    Attributes:
        feature_gates: for all its components.
        flags: further flags by component, such as ``{"kube-apiserver": {"v": "4"}}``; they
            replace the harness's own of the same name.
        scheduler: whether kube-scheduler is started; a test with its own wants none.
        scheduler_config: top-level fields of KubeSchedulerConfiguration, such as ``profiles``.
        client_qps: requests a second of controller-manager and scheduler, each. Their defaults
            (20 and 50) would be what a test of many pods measures.
    """

    feature_gates: Mapping[str, bool] = field(default_factory=dict)
    flags: Mapping[str, Flags] = field(default_factory=dict)
    scheduler: bool = True
    scheduler_config: Mapping[str, Any] = field(default_factory=dict)
    client_qps: int = 1000

    def argv(self, component: str, own: Flags) -> list[str]:
        """A component's flags: the harness's, the feature gates, and what the test asked for."""
        merged = dict(own)
        if self.feature_gates:
            gates = sorted(self.feature_gates.items())
            merged["feature-gates"] = ",".join(f"{name}={str(on).lower()}" for name, on in gates)
        merged.update(self.flags.get(component, {}))
        return [f"--{name}={value}" for name, value in merged.items()]


@dataclass(frozen=True, slots=True)
class NodeOptions:
    """How a node differs from the usual one.

    Attributes:
        kubelet_flags: further flags of the kubelet.
        kubelet_config: fields of KubeletConfiguration that replace the harness's own.
        labels: of the Node object.
    """

    kubelet_flags: Flags = field(default_factory=dict)
    kubelet_config: Mapping[str, Any] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
