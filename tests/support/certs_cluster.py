"""Replicas with their real executors and HTTPS servers, against the sandbox API server.

The hammer is the API server's side of a webhook call: a fresh TLS handshake that trusts what
the configuration says, now and a moment ago.
"""

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from prometheus_client import CollectorRegistry

from gpu_fraction.certs.lifetimes import Lifetimes
from gpu_fraction.certs.manager import CertificateManager
from gpu_fraction.certs.replica_leases import ReplicaIdentity
from gpu_fraction.certs.secret import state_of
from gpu_fraction.certs.settings import Installation
from gpu_fraction.certs.state import CaState, Phase
from gpu_fraction.certs.wire import SecretObject
from gpu_fraction.kube.access import Access
from gpu_fraction.kube.backoff import Backoff
from gpu_fraction.kube.client import Client, connect
from gpu_fraction.kube.election import LeaseTimings
from gpu_fraction.kube.errors import NotFoundError
from gpu_fraction.kube.events import EventRecorder, EventSettings
from gpu_fraction.kube.requests import PatchKind
from gpu_fraction.kube.resources import LEASES, MUTATING_WEBHOOKS, SECRETS, VALIDATING_WEBHOOKS
from gpu_fraction.kube.retry import RetryPolicy
from gpu_fraction.kube.timestamps import utc_now
from gpu_fraction.sandbox.apiserver import ApiServer
from tests.support.access import fixed

NAMESPACE = "gpu-fraction-system"
INSTALLATION = Installation(mutating=("gpu-fraction",), validating=("gpu-fraction",))
NAME = INSTALLATION.server_names[0]
LIFETIMES = Lifetimes(
    ca_life_s=3600,
    leaf_life_s=1800,
    settle_s=0.25,
    retire_s=0.2,
    heartbeat_s=0.2,
)
TIMINGS = LeaseTimings(
    duration_s=1, renew_deadline_s=0.7, retry_period_s=0.1, release_timeout_s=0.5
)
# What an API server may be behind; below ``settle_s``.
LAG_S = 0.1


def configuration(kind: str, *entries: str, service: str = INSTALLATION.service) -> dict[str, Any]:
    """A webhook configuration without caBundles."""
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": f"{kind}WebhookConfiguration",
        "metadata": {"name": "gpu-fraction"},
        "webhooks": [
            {
                "name": entry,
                "clientConfig": {"service": {"name": service, "namespace": NAMESPACE}},
                "rules": [],
                "sideEffects": "None",
                "admissionReviewVersions": ["v1"],
            }
            for entry in entries
        ],
    }


@asynccontextmanager
async def client_of(api: ApiServer, user: str) -> AsyncIterator[Client]:
    """A client whose waits are short, as a user of its own."""
    assert api.tokens is not None
    api.tokens[user] = user
    retry = RetryPolicy(Backoff(initial_s=0.01, cap_s=0.05), attempt_timeout_s=1.0)
    source = fixed(Access(server=api.url, authorization=f"Bearer {user}"))
    async with connect(source, component="certs-test", timeout_s=3.0, retry=retry) as client:
        yield client


async def secret_state(client: Client) -> CaState | None:
    """What the Secret holds."""
    address = SECRETS.at(INSTALLATION.secret, namespace=NAMESPACE)
    try:
        return state_of(await client.get(address, SecretObject), utc_now())
    except NotFoundError:
        return None


@dataclass
class Replica:
    """A running replica: its manager, its HTTPS port, its tasks."""

    manager: CertificateManager
    registry: CollectorRegistry
    port: int
    task: asyncio.Task[None]


@dataclass
class Cluster:
    """The API server, a client of it, and the replicas."""

    api: ApiServer
    client: Client
    replicas: dict[str, Replica] = field(default_factory=dict)

    async def state(self) -> CaState | None:
        """What the Secret holds."""
        return await secret_state(self.client)

    async def until(self, holds: Callable[[CaState | None], bool], what: str) -> CaState:
        """The state once a condition holds."""
        found = None
        try:
            async with asyncio.timeout(20):
                while True:
                    found = await self.state()
                    if holds(found) and found is not None:
                        return found
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"not {what} in time: {found}") from None

    async def until_phase(self, phase: Phase) -> CaState:
        """The state once the rotation is in a phase."""
        return await self.until(lambda s: s is not None and s.phase is phase, phase)

    async def until_rotated(self, before: CaState) -> CaState:
        """The state once it is Steady with another CA."""
        return await self.until(
            lambda s: s is not None and s.phase is Phase.STEADY and s.current != before.current,
            "rotated",
        )

    async def until_ready(self) -> CaState:
        """The state once it is Steady and every replica is ready."""

        def ready(state: CaState | None) -> bool:
            faults = [r.manager.check() for r in self.replicas.values()]
            steady = state is not None and state.phase is Phase.STEADY and not state.rotate_ca
            return steady and not any(faults)

        return await self.until(ready, "ready")

    async def leases(self) -> set[str]:
        """The names of all Leases."""
        listing = await self.client.list(LEASES.at(namespace=NAMESPACE), dict[str, Any])
        return {item["metadata"]["name"] for item in listing.items}

    async def bundles(self) -> dict[str, str]:
        """Every caBundle as it is stored, by webhook."""
        found = {}
        for resource in (MUTATING_WEBHOOKS, VALIDATING_WEBHOOKS):
            config = await self.client.get(resource.at("gpu-fraction"), dict[str, Any])
            for entry in config["webhooks"]:
                encoded = entry["clientConfig"].get("caBundle", "")
                found[entry["name"]] = base64.b64decode(encoded).decode()
        return found

    async def set_bundles(self, pem: str) -> None:
        """Write every caBundle, as the injector of somebody else does."""
        encoded = base64.b64encode(pem.encode()).decode()
        for resource in (MUTATING_WEBHOOKS, VALIDATING_WEBHOOKS):
            address = resource.at("gpu-fraction")
            config = await self.client.get(address, dict[str, Any])
            for entry in config["webhooks"]:
                entry["clientConfig"]["caBundle"] = encoded
            body = {"webhooks": config["webhooks"]}
            await self.client.patch(address, PatchKind.MERGE, body, dict[str, Any])

    async def leader(self) -> str:
        """The replica that holds the lease."""
        address = LEASES.at(INSTALLATION.election, namespace=NAMESPACE)
        lease = await self.client.get(address, dict[str, Any])
        return str(lease["spec"]["holderIdentity"]).partition("_")[0]

    def cut_off(self, name: str) -> None:
        """From now on the API server refuses everything that this replica asks."""
        assert self.api.tokens is not None
        self.api.tokens.pop(name)

    async def kill(self, name: str) -> None:
        """End a replica without a word, as ``kill -9`` does: nothing is released or deleted."""
        self.cut_off(name)
        replica = self.replicas.pop(name)
        replica.task.cancel()
        await asyncio.wait([replica.task])


@asynccontextmanager
async def cluster() -> AsyncIterator[Cluster]:
    """An API server with our namespace and configurations, no replicas yet."""
    api = ApiServer(tokens={})
    api.add_namespace(NAMESPACE)
    api.add(configuration("Mutating", "mutate.gpu-fraction.dev"))
    api.add(configuration("Validating", "validate.gpu-fraction.dev", "changes.gpu-fraction.dev"))
    async with api.serve(), client_of(api, "administrator") as client:
        yield Cluster(api, client)


@asynccontextmanager
async def running(
    made: Cluster, *names: str, clock: Callable[[], datetime] = utc_now
) -> AsyncIterator[Cluster]:
    """Replicas with these names, ended on the way out."""
    async with asyncio.TaskGroup() as group:
        for name in names:
            made.replicas[name] = await start(made, name, group, clock)
        try:
            yield made
        finally:
            for replica in made.replicas.values():
                replica.task.cancel()


async def start(
    made: Cluster,
    name: str,
    group: asyncio.TaskGroup,
    clock: Callable[[], datetime] = utc_now,
) -> Replica:
    """One replica, listening on a port of its own."""
    registry = CollectorRegistry()
    stack = AsyncExitStack()
    client = await stack.enter_async_context(client_of(made.api, name))
    recorder = EventRecorder(client, component="test", settings=EventSettings(flush_timeout_s=0.2))
    manager = CertificateManager(
        client,
        INSTALLATION,
        LIFETIMES,
        ReplicaIdentity(name=name),
        registry=registry,
        recorder=recorder,
        timings=TIMINGS,
        clock=clock,
    )
    server = await asyncio.start_server(_answer, "127.0.0.1", 0, ssl=manager.serving.context)

    async def live() -> None:
        async with stack, server:
            try:
                async with asyncio.TaskGroup() as parts:
                    parts.create_task(manager.run())
                    parts.create_task(recorder.run())
            finally:
                await _accept_no_more(server)

    task = group.create_task(live(), name=name)
    return Replica(manager, registry, server.sockets[0].getsockname()[1], task)


async def _accept_no_more(server: asyncio.Server) -> None:
    """Let the connections that were accepted reach their handlers, before the server is closed.

    asyncio's server drops them without closing them: in Python 3.11 a connection cannot attach
    itself to a closed server (asyncio/base_events.py, ``Server._attach``).
    """
    for listening in server.sockets:
        asyncio.get_running_loop().remove_reader(listening.fileno())
    for _ in range(3):
        await asyncio.sleep(0)


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        try:
            await reader.readline()
            writer.write(b"ok\n")
            await writer.drain()
        finally:
            writer.close()
        await writer.wait_closed()


@dataclass
class Hammer:
    """Calls every replica all the time, trusting what each caBundle says.

    Attributes:
        done: Calls that were answered.
        failed: What went wrong, one line each.
    """

    made: Cluster
    done: int = 0
    failed: list[str] = field(default_factory=list)
    _history: list[tuple[float, dict[str, str]]] = field(default_factory=list)
    _stopped: bool = False

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator["Hammer"]:
        """Hammer for as long as the context lasts; a call that has begun is finished."""
        self._history.append((self._now(), await self.made.bundles()))
        async with asyncio.TaskGroup() as group:
            follow = group.create_task(self._follow(), name="follow")
            strikes = [group.create_task(self._strike(), name=f"strike-{i}") for i in range(2)]
            try:
                yield self
            finally:
                # A handshake that is cut off leaves the server with a connection of nobody's.
                self._stopped = True
                await asyncio.wait(strikes)
                follow.cancel()

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(0.02)
            self._history.append((self._now(), await self.made.bundles()))

    async def _strike(self) -> None:
        while not self._stopped:
            for replica in list(self.made.replicas.values()):
                for entry in self._history[-1][1]:
                    for which in (0, -1):
                        if not self._stopped:
                            await self._call(replica, entry, await self._seen(which, entry))

    async def _seen(self, which: int, entry: str) -> str:
        """What the slowest API server, 0, or the quickest, -1, knows now of an entry.

        The test's own delays must not make either of them slower than ``LAG_S``.
        """
        while self._history[-1][0] < self._now() - LAG_S:
            await asyncio.sleep(0.005)
        limit = self._now() - LAG_S
        while len(self._history) > 1 and self._history[1][0] < limit:
            self._history.pop(0)
        return self._history[which][1][entry]

    async def _call(self, replica: Replica, entry: str, bundle: str) -> None:
        try:
            context = ssl.create_default_context(cadata=bundle or None)
            async with asyncio.timeout(5):
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", replica.port, ssl=context, server_hostname=NAME
                )
                try:
                    writer.write(b"review\n")
                    answer = await reader.readline()
                finally:
                    writer.close()
                with suppress(OSError):  # the answer is there
                    await writer.wait_closed()
            problem = "" if answer == b"ok\n" else f"answered {answer!r}"
        except (OSError, TimeoutError) as error:
            problem = repr(error)
        if not problem:
            self.done += 1
        elif replica in self.made.replicas.values():
            state = await self.made.state()
            self.failed.append(f"{entry} in {state and state.phase}: {problem}")

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
