"""What Helm makes of the chart, or says against it."""

import json
import os
import subprocess
from base64 import b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.cluster.harness.binaries import find_binaries

CHART = Path(__file__).parents[2] / "deploy" / "chart"
_TIMEOUT_S = 50

Object = dict[str, Any]

PEM = b64encode(b"-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----\n").decode()
DRA = {"backend": "dra", "dra": {"enabled": True}}
PROVIDED = {"mode": "provided", "provided": {"secretName": "own", "caBundle": PEM}}
COMBINATIONS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "dra": DRA,
    "charged claims": {**DRA, "dra": {"enabled": True, "handWrittenClaims": "charge"}},
    "hami": {"backend": "hami"},
    "cert-manager": {"certificates": {"mode": "cert-manager"}},
    "provided": {"certificates": PROVIDED},
    "openshift": {"openshift": True},
    "simulated": {"simulatedCards": {"count": 2}},
    "one replica": {part: {"replicas": 1} for part in ("webhook", "controller", "scheduler")},
    "host network": {"webhook": {"hostNetwork": True}},
    "everything": {
        "commonLabels": {"team": "infra"},
        "imageRegistry": "mirror.example:5000/gpu/",
        "imagePullSecrets": [{"name": "pull"}],
        "networkPolicy": {"enabled": True},
        "monitoring": {"enabled": True, "labels": {"release": "prometheus"}},
        "namespace": {"create": True},
        "priorityClass": {"create": False},
        "nodeDaemon": {"kubeletRoot": "/var/lib/k0s/kubelet", "isolation": ["mps", "hami-core"]},
        "webhook": {
            "topologySpreadConstraints": [
                {
                    "maxSkew": 1,
                    "topologyKey": "topology.kubernetes.io/zone",
                    "whenUnsatisfiable": "ScheduleAnyway",
                }
            ],
            "namespaceSelector": [{"key": "gpu", "operator": "Exists"}],
            "annotations": {"admissions.enforcer/disabled": "true"},
        },
    },
}
"""Values that change many objects, by what they are about."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """A release's objects.

    Attributes:
        text: as Helm prints them.
        objects: the same, read.
    """

    text: str
    objects: tuple[Object, ...]

    def kind(self, kind: str) -> list[Object]:
        """The objects of a kind."""
        return [one for one in self.objects if one["kind"] == kind]

    def named(self, kind: str, suffix: str) -> Object:
        """The object of a kind whose name ends so."""
        (found,) = (m for m in self.kind(kind) if m["metadata"]["name"].endswith(suffix))
        return found

    @property
    def workloads(self) -> list[Object]:
        """Deployments and DaemonSets."""
        return [one for one in self.objects if "template" in one.get("spec", {})]

    def pod(self, component: str) -> Object:
        """The specification of a component's pod."""
        (found,) = (m for m in self.workloads if m["metadata"]["name"].endswith(component))
        return dict(found["spec"]["template"]["spec"])

    @property
    def containers(self) -> Iterator[Object]:
        """All containers of all pods."""
        for workload in self.workloads:
            pod = workload["spec"]["template"]["spec"]
            yield from (*pod.get("initContainers", ()), *pod["containers"])

    def environment(self, component: str) -> dict[str, str]:
        """The variables with values of a component's last container, the program of ours."""
        container = self.pod(component)["containers"][-1]
        return {e["name"]: e["value"] for e in container["env"] if "value" in e}


@dataclass(frozen=True, slots=True)
class Helm:
    """Helm, without the settings, plugins and caches of whoever runs the tests.

    Attributes:
        program: Helm 3 or 4.
        home: an empty folder.
    """

    program: Path
    home: Path

    def template(
        self,
        values: Mapping[str, Any] | None = None,
        *,
        name: str = "gpu-fraction",
        namespace: str = "gpu-fraction-system",
        kubernetes: str = "v1.37.2",
    ) -> Rendered:
        """The objects of a release.

        Raises:
            ValueError: Helm refuses; with what it says.
        """
        words = ("template", name, f"--namespace={namespace}", f"--kube-version={kubernetes}")
        text = self(*words, str(CHART), "--values=-", stdin=json.dumps(values or {}))
        objects = YAML(typ="safe").load_all(text)
        return Rendered(text, tuple(one for one in objects if one is not None))

    def __call__(
        self, *words: str, stdin: str = "", timeout_s: float = _TIMEOUT_S, **environ: str
    ) -> str:
        """What a command prints.

        Args:
            words: the command.
            stdin: what it reads.
            timeout_s: how long it may take.
            environ: its environment variables.

        Raises:
            ValueError: it failed; with what it says.
        """
        done = subprocess.run(
            [self.program, *words],
            input=stdin,
            env={"HOME": str(self.home), **environ},
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        if done.returncode != 0:
            raise ValueError(done.stderr)
        return done.stdout


def find_helm(program: str, factory: pytest.TempPathFactory) -> Helm:
    """``helm3`` or ``helm4``; skips the test where it is not found, but in CI, which builds it."""
    found = find_binaries().paths.get(program)
    if found is None:
        missing = f"no {program} on this machine: `make cluster-assets` builds it"
        (pytest.fail if "CI" in os.environ else pytest.skip)(missing)
    return Helm(found, factory.mktemp(program))
