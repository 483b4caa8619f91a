"""A reflector of pods that follows a server, and who listens to it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry

from gpu_fraction.kube import errors
from gpu_fraction.kube.backoff import Backoff
from gpu_fraction.kube.client import Client
from gpu_fraction.kube.metrics import KubeMetrics
from gpu_fraction.kube.objects import Meta
from gpu_fraction.kube.reflector import Reflector, ReflectorSettings
from gpu_fraction.kube.requests import Selection
from gpu_fraction.kube.resources import PODS
from gpu_fraction.kube.store import Change
from gpu_fraction.kube.watching import EventKind

SETTINGS = ReflectorSettings(page_size=3, backoff=Backoff(initial_s=0.01, cap_s=0.05))


class Spec(msgspec.Struct, frozen=True, rename="camel"):
    """What the test reads of a pod's spec."""

    node_name: str = ""


class Labelled(Meta, frozen=True):
    """Metadata with labels."""

    labels: dict[str, str] = msgspec.field(default_factory=dict)


class Pod(msgspec.Struct, frozen=True):
    """What the test reads of a pod."""

    metadata: Labelled
    spec: Spec = Spec()


def manifest(name: str, *, node: str = "", **labels: Any) -> dict[str, Any]:
    """A pod as the server stores it."""
    spec: dict[str, Any] = {"containers": [{"name": "c", "image": "i"}]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "team-a", "labels": labels},
        "spec": {**spec, "nodeName": node} if node else spec,
    }


class Recorder(KubeMetrics):
    """Listens and observes, and remembers."""

    def __init__(self) -> None:
        super().__init__(CollectorRegistry())
        self.changes: list[tuple[str, str]] = []
        self.lists = 0
        self.bad = 0
        self.failures: list[type[errors.KubeError]] = []
        self.kinds: list[EventKind] = []

    def changed(self, change: Change[Pod]) -> None:
        """Remember a change as added, updated or deleted, and the name."""
        if change.old is None:
            assert change.new is not None
            self.changes.append(("added", change.new.metadata.name))
        else:
            what = "deleted" if change.new is None else "updated"
            self.changes.append((what, change.old.metadata.name))

    def listed(self, resource: str) -> None:
        """Count lists."""
        assert resource == "pods"
        self.lists += 1

    def received(self, resource: str, kind: EventKind) -> None:
        """Remember kinds of events."""
        assert resource == "pods"
        self.kinds.append(kind)

    def malformed(self, resource: str) -> None:
        """Count objects that do not decode."""
        assert resource == "pods"
        self.bad += 1

    def failed(self, resource: str, error: errors.KubeError) -> None:
        """Remember failures."""
        assert resource == "pods"
        self.failures.append(type(error))


@asynccontextmanager
async def following(
    client: Client,
    recorder: Recorder,
    *,
    selection: Selection = Selection(),  # noqa: B008 - frozen
    settings: ReflectorSettings = SETTINGS,
) -> AsyncIterator[Reflector[Pod]]:
    """A reflector of the namespace's pods, synced, with the recorder listening."""
    client.observer = recorder
    reflector = Reflector(
        client,
        PODS.at(namespace="team-a"),
        Pod,
        selection=selection,
        indexes={"node": lambda pod: [pod.spec.node_name] if pod.spec.node_name else []},
        settings=settings,
    )
    reflector.subscribe(recorder.changed)
    async with asyncio.TaskGroup() as tasks:
        run = tasks.create_task(reflector.run())
        async with asyncio.timeout(5):
            await reflector.synced.wait()
            yield reflector
        run.cancel()


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something holds; the test's own timeout bounds it."""
    while not condition():
        await asyncio.sleep(0.002)


def names(reflector: Reflector[Pod]) -> set[str]:
    """Names in the copy."""
    return {pod.metadata.name for pod in reflector.store}
