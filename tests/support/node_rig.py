"""A node for tests: the daemon's real parts between a fake kubelet and a small API server."""

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from prometheus_client import CollectorRegistry

from gpu_fraction.domain import assignment, keys
from gpu_fraction.domain.assignment import CardShare
from gpu_fraction.domain.inventory import Card, Inventory
from gpu_fraction.node_daemon.isolation.node import NodeIsolation
from gpu_fraction.node_daemon.kubelet.session import Waits
from gpu_fraction.node_daemon.slices.binder import Timing
from gpu_fraction.node_daemon.slices.collector import Pace
from gpu_fraction.node_daemon.slices.service import Paths, Ports, SliceService, Tempo
from gpu_fraction.node_daemon.state.allocation import PodUid
from gpu_fraction.node_daemon.state.errors import ApiUnavailableError, PodRef, Reason, Refusal
from gpu_fraction.node_daemon.state.node_state import NodeState
from gpu_fraction.node_daemon.state.pods import Container, Pod
from gpu_fraction.sandbox.kubelet.devices import AdmissionError, StartError
from gpu_fraction.sandbox.kubelet.kubelet import FakeKubelet, KubeletPod
from gpu_fraction.sandbox.kubelet.runtime import Started

TEMPO = Tempo(
    timing=Timing(settle_s=0.0, listed_s=0.05, deadline_s=5.0),
    pace=Pace(idle_s=0.2, missing_s=0.02, unbound_s=0.05, lingering_s=0.05, retry_s=0.02),
    waits=Waits(
        register_s=5.0, stream_s=5.0, again_s=0.01, retry_s=0.01, retry_most_s=0.05, poll_s=1.0
    ),
)


def rig_card(index: int, *, memory_mib: int = 40_000, slots: int = 32, **fields: object) -> Card:
    """A card by its index."""
    base = Card(uuid=f"GPU-{index}", index=index, model="A", memory_mib=memory_mib, slots=slots)
    return replace_struct(base, **fields)


def replace_struct(base: Card, **fields: object) -> Card:
    """A card with other fields."""
    return Card(**({name: getattr(base, name) for name in base.__struct_fields__} | fields))


def inventory(*cards: Card) -> Inventory:
    """A node with these cards."""
    return Inventory(v=1, driver_version="570.1", cards=cards)


def share(index: int, core_milli: int = 250, memory_mib: int = 10_000) -> CardShare:
    """Part of a card."""
    return CardShare(f"GPU-{index}", core_milli, memory_mib)


@dataclass
class Api:
    """The API server: pods, their annotations, and whether it answers."""

    pods: dict[str, Pod] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)
    up: bool = True
    loses_answers: bool = False
    events: list[tuple[str, str, str]] = field(default_factory=list)
    service: SliceService | None = None

    async def assign(self, pod: PodRef, text: str) -> None:
        """Annotate, unless the server is down."""
        await asyncio.sleep(0)
        if not self.up:
            raise ApiUnavailableError("connection refused")
        found = self.pods.get(pod.uid)
        if found is None:
            raise Refusal(Reason.POD_ENDED, "not found")
        self.put(replace(found, annotations={**found.annotations, keys.ASSIGNED: text}))
        if self.loses_answers:
            raise ApiUnavailableError("answer lost")

    def refused(self, pod: PodRef, reason: str, message: str) -> None:
        """Keep an Event."""
        self.events.append((pod.name, reason, message))

    def put(self, pod: Pod) -> None:
        """Create or change a pod; whoever watches sees it, unless the server is down."""
        self.pods[pod.uid] = pod
        if self.service is not None and self.up:
            self.service.state.pods.put(pod)

    def delete(self, uid: str) -> None:
        """Delete a pod."""
        del self.pods[uid]
        self.deleted.add(uid)
        if self.service is not None and self.up:
            self.service.state.pods.remove(PodUid(uid))

    def watch(self, service: SliceService) -> None:
        """Feed a daemon from now on."""
        self.service = service
        if self.up:
            for pod in self.pods.values():
                service.state.pods.put(pod)
            for uid in self.deleted:
                service.state.pods.remove(PodUid(uid))
            service.state.pods.mark_synced()

    def come_back(self) -> None:
        """Answer again; watchers list anew."""
        self.up = True
        if self.service is not None:
            self.watch(self.service)


class Rig:
    """One node."""

    def __init__(
        self, root: Path, cards: Inventory, *, checkpoint: bool = True, tempo: Tempo = TEMPO
    ) -> None:
        self.tempo = tempo
        self.paths = Paths(
            kubelet=root / "kubelet",
            state=root / "state",
            cdi=root / "cdi",
            host_cdi=(root / "etc-cdi", root / "cdi"),
        )
        for path in (self.paths.cdi, self.paths.host_cdi[0]):
            path.mkdir(parents=True)
        self.kubelet = FakeKubelet(self.paths.kubelet, self.paths.cdi, keys.SLOT, random.Random(1))
        self.kubelet.devices.writes_checkpoint = checkpoint
        self.api = Api()
        self.cards: Inventory | None = cards
        self.cgroups: set[str] = set()
        self.isolation = NodeIsolation([])
        self.framework_env: Literal["on", "off"] = "on"
        self.registry = CollectorRegistry()
        self._task: asyncio.Task[None] | None = None
        self._numbers = itertools.count()

    @property
    def service(self) -> SliceService:
        """The running daemon."""
        assert self.api.service is not None
        return self.api.service

    async def start_daemon(self) -> None:
        """A new process on the same directories."""
        self.registry = CollectorRegistry()
        ports = Ports(
            assigner=self.api,
            refused=self.api.refused,
            isolation=self.isolation,
            has_cgroup=lambda uid: uid in self.cgroups,
        )
        service = SliceService(
            self.paths,
            NodeState.below(self.paths.state),
            ports,
            self.registry,
            self.tempo,
            framework_env=self.framework_env,
        )
        await service.load()
        self._task = asyncio.create_task(service.run(), name="daemon")
        self.api.watch(service)
        if self.cards is not None:
            await service.restore()
            service.state.inventory.set(self.cards)

    async def kill_daemon(self) -> None:
        """The process ends at once; the kubelet sees its connection break."""
        task, self._task = self._task, None
        self.api.service = None
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def show_cards(self, cards: Inventory) -> None:
        """What NVML shows from now on."""
        self.cards = cards
        await self.service.restore()
        self.service.state.inventory.set(cards)

    async def registered(self) -> None:
        """Wait until the kubelet knows the tokens of the present cards."""
        await self.until(lambda: bool(self.kubelet.devices.endpoint.healthy))

    async def ready(self) -> None:
        """Wait until containers may start."""
        await self.registered()
        await self.until(self.service.binder.ready.is_set)

    @staticmethod
    async def until(holds: Callable[[], bool], timeout_s: float = 5.0) -> None:
        """Wait until a function answers true."""
        async with asyncio.timeout(timeout_s):
            while not holds():
                await asyncio.sleep(0.005)

    def pod(
        self,
        assigned: Mapping[str, Sequence[CardShare]] | None = None,
        *,
        name: str = "",
        limits: Mapping[str, int] | None = None,
        annotations: Mapping[str, str] | None = None,
        containers: Sequence[Container] = (),
    ) -> Pod:
        """Create a pod at the API server, assigned where ``assigned`` is given."""
        number = next(self._numbers)
        notes = dict(annotations or {})
        names = ["main"]
        if assigned is not None:
            notes[keys.ASSIGNED] = assignment.render({k: tuple(v) for k, v in assigned.items()})
            names = list(assigned)
        members = tuple(containers) or tuple(
            Container(n, limits={keys.SLOT: 1, **(limits or self._limits(assigned, n))})
            for n in names
        )
        pod = Pod(
            namespace="ns",
            name=name or f"pod-{number}",
            uid=PodUid(f"uid-{number}"),
            annotations=notes,
            containers=members,
        )
        self.api.put(pod)
        return pod

    @staticmethod
    def _limits(assigned: Mapping[str, Sequence[CardShare]] | None, name: str) -> dict[str, int]:
        shares = (assigned or {}).get(name, (share(0),))
        return {
            keys.CORE_MILLI: sum(s.core_milli for s in shares),
            keys.MEMORY_MIB: sum(s.memory_mib for s in shares),
        }

    async def admit(self, pod: Pod, ids: Sequence[str] = ()) -> None:
        """The kubelet takes the pod."""
        await self.kubelet.admit(self.kubelet_pod(pod), ids)

    @staticmethod
    def kubelet_pod(pod: Pod) -> KubeletPod:
        """The pod as the kubelet knows it."""
        holding = [c for c in pod.containers if c.holds_slot]
        return KubeletPod(
            pod.namespace,
            pod.name,
            pod.uid,
            tuple(c.name for c in holding if c.kind != "init"),
            tuple(c.name for c in holding if c.kind == "init"),
        )

    async def start(self, pod: Pod, container: str = "main") -> Started:
        """Start a container, again and again as the kubelet does."""
        for _ in range(200):
            try:
                return await self.kubelet.start_container(pod.uid, container)
            except StartError as e:
                last = e
                await asyncio.sleep(0.01)
        raise last

    async def run_pod(self, pod: Pod) -> dict[str, Started]:
        """Admit a pod and start all its containers."""
        await self.admit(pod)
        names = self.kubelet_pod(pod).containers
        started = await asyncio.gather(*(self.start(pod, name) for name in names))
        return dict(zip(names, started, strict=True))

    def end(self, pod: Pod) -> None:
        """The pod is deleted and gone from the node."""
        self.kubelet.remove(pod.uid)
        self.api.delete(pod.uid)

    def sums(self) -> dict[str, tuple[int, int]]:
        """What running containers hold of each card: MiB and containers.

        Taken from the environment that the runtime gave them, not from the daemon.
        """
        totals: dict[str, list[int]] = {}
        for started in self.kubelet.running.values():
            uuids = started.env["GPU_FRACTION_DEVICES"].split(",")
            memory = started.env["GPU_MEMORY_LIMIT_MIB"].split(",")
            memory = memory * len(uuids) if len(memory) == 1 else memory
            for uuid, mib in zip(uuids, memory, strict=True):
                total = totals.setdefault(uuid, [0, 0])
                total[0] += int(mib)
                total[1] += 1
        return {uuid: (total[0], total[1]) for uuid, total in totals.items()}

    def files(self) -> set[str]:
        """Names of the slice files that are there."""
        return {path.name for path in self.paths.cdi.glob("*.json")}


@asynccontextmanager
async def node(
    root: Path,
    *cards: Card,
    checkpoint: bool = True,
    ready: bool = True,
    tempo: Tempo = TEMPO,
) -> AsyncIterator[Rig]:
    """A node whose daemon and kubelet run while the block runs."""
    rig = Rig(root, inventory(*cards), checkpoint=checkpoint, tempo=tempo)
    await rig.kubelet.start()
    await rig.start_daemon()
    try:
        if ready:
            await rig.ready()
        yield rig
    finally:
        try:
            await rig.kill_daemon()
        finally:
            await rig.kubelet.stop()


__all__ = [
    "TEMPO",
    "AdmissionError",
    "Api",
    "Rig",
    "StartError",
    "inventory",
    "node",
    "rig_card",
    "share",
]
