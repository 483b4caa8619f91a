"""A webhook process that looks after its own certificates.

Usage: python -m tests.cluster.harness.certs_process SETTINGS.json
The real admission server, HTTPS server and certificate manager; only the wiring is here, and
two faults on demand: answers that close their connection, and a ``kill -9`` of itself right
after the write that enters a phase.
"""

import asyncio
import itertools
import os
import signal
import sys
from pathlib import Path

import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry

from gpu_fraction.certs.lifetimes import Lifetimes
from gpu_fraction.certs.manager import CertificateManager
from gpu_fraction.certs.replica_leases import ReplicaIdentity
from gpu_fraction.certs.settings import Installation
from gpu_fraction.kube.access import kubeconfig
from gpu_fraction.kube.client import Client, connect
from gpu_fraction.kube.election import LeaseTimings
from gpu_fraction.kube.event_limits import ObjectReference
from gpu_fraction.kube.events import EventRecorder, EventType
from gpu_fraction.serving import logs
from gpu_fraction.serving.server import Drain, HttpsServer
from gpu_fraction.settings.rewrite import CostSettings, RewriteSettings, StackSettings
from gpu_fraction.webhook.decide import Decider
from gpu_fraction.webhook.endpoints import AdmissionApp

LEASE = LeaseTimings(duration_s=3, renew_deadline_s=2.0, retry_period_s=0.4)


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What the test chooses.

    Attributes:
        name: of the replica.
        port: to listen on; 0 serves nothing and only stands for election.
        kubeconfig: of its ServiceAccount.
        lifetimes: changes to the defaults.
        close_every: every so-manieth answer closes its connection.
        kill_file: names the Event reason at which the process kills itself; read each time.
        lead: whether it stands for election.
    """

    name: str
    port: int
    kubeconfig: str
    lifetimes: dict[str, float]
    close_every: int = 3
    kill_file: str = ""
    lead: bool = True


class FatalRecorder(EventRecorder):
    """Kills its own process at an Event, which is recorded right after the write it tells of."""

    kill_file = Path()

    def record(self, about: ObjectReference, kind: EventType, reason: str, message: str) -> None:
        """Die if it is time; nothing is released, deleted or answered."""
        if self.kill_file.is_file() and self.kill_file.read_text() == reason:
            self.kill_file.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        super().record(about, kind, reason, message)


async def serve(settings: Settings) -> None:
    """Run until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    source = kubeconfig(settings.kubeconfig)
    async with connect(source, component="webhook") as client:
        recorder = FatalRecorder(client, component="gpu-fraction-webhook", instance=settings.name)
        recorder.kill_file = Path(settings.kill_file or "/nonexistent")
        registry = CollectorRegistry()
        manager = _manager(settings, client, recorder, registry)
        async with asyncio.TaskGroup() as tasks:
            background = [
                tasks.create_task(manager.run(), name="certificates"),
                tasks.create_task(recorder.run(), name="events"),
            ]
            if settings.port:
                await _server(settings, manager, registry, stop).serve(stop)
            else:
                await stop.wait()
            for task in background:
                task.cancel()


def _manager(
    settings: Settings, client: Client, recorder: EventRecorder, registry: CollectorRegistry
) -> CertificateManager:
    return CertificateManager(
        client,
        Installation(),
        Lifetimes(**settings.lifetimes),
        ReplicaIdentity(name=settings.name, serves=bool(settings.port), leads=settings.lead),
        registry=registry,
        recorder=recorder,
        timings=LEASE,
    )


def _server(
    settings: Settings,
    manager: CertificateManager,
    registry: CollectorRegistry,
    stop: asyncio.Event,
) -> HttpsServer:
    decider = Decider(RewriteSettings(stacks=StackSettings(CostSettings(81920))))

    app = AdmissionApp(
        decider.mutate,
        decider.validate,
        registry,
        checks=(manager.check, lambda: "stopping" if stop.is_set() else None),
    ).build()
    turn = itertools.count(1)

    async def close(_request: web.Request, response: web.StreamResponse) -> None:
        # The API server then needs a new connection, and with it a new handshake.
        if next(turn) % settings.close_every == 0:
            response.headers["Connection"] = "close"
            response.force_close()

    app.on_response_prepare.append(close)
    return HttpsServer(
        app,
        host="127.0.0.1",
        port=settings.port,
        tls=manager.serving.context,
        drain=Drain(least_s=1, most_s=15),
    )


if __name__ == "__main__":
    logs.configure("info")
    asyncio.run(serve(msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Settings)))
