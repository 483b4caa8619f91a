"""Random lives of a node: after each step the ledger, the files and the containers agree."""

import asyncio
import json
import os
import shutil
import tempfile
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    precondition,
    rule,
)

from gpu_fraction.domain import assignment, keys
from node_daemon.pods import Pod
from tests.support.node_rig import AdmissionError, Rig, StartError, card, inventory, share

T = TypeVar("T")
CARD_MIB = 3_000
CARDS = 2
IDS = [f"gpu-fraction-slot-000{i}" for i in range(3)]


class Node(RuleBasedStateMachine):
    """One node, its kubelet, its daemon and its API server."""

    pods = Bundle("pods")

    @initialize(checkpoint=st.booleans())
    def boot(self, checkpoint: bool) -> None:
        """A node with two small cards."""
        self.loop = asyncio.new_event_loop()
        self.root = Path(tempfile.mkdtemp(prefix="node-"))
        cards = inventory(*(card(i, memory_mib=CARD_MIB, slots=4) for i in range(CARDS)))
        self.rig = Rig(self.root, cards, checkpoint=checkpoint)
        self.daemon = True
        self.checkpoint = checkpoint
        self.run(self.rig.kubelet.start())
        self.run(self.rig.start_daemon())
        self.run(self.rig.ready())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Let the node live until ``work`` is done."""
        return self.loop.run_until_complete(asyncio.wait_for(work, 20))

    def teardown(self) -> None:
        """End the node."""
        if hasattr(self, "rig"):
            self.run(self.rig.kill_daemon())
            self.run(self.rig.kubelet.stop())
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
            self.loop.close()
            shutil.rmtree(self.root)

    @rule(target=pods, index=st.integers(0, CARDS - 1), memory_mib=st.sampled_from([900, 2_000]))
    def create(self, index: int, memory_mib: int) -> Pod:
        """A pod that a scheduler assigned, rightly or not."""
        return self.rig.pod({"main": [share(index, 100, memory_mib)]})

    @rule(target=pods)
    def create_unassigned(self) -> Pod:
        """A pod that nobody assigned."""
        return self.rig.pod(limits={keys.CORE_MILLI: 100, keys.MEMORY_MIB: 900})

    @rule(pod=pods, device=st.one_of(st.none(), st.sampled_from(IDS)))
    def admit(self, pod: Pod, device: str | None) -> None:
        """The kubelet takes the pod, perhaps with an id that another pod has."""
        if pod.uid in self.rig.api.pods and pod.uid not in self.rig.kubelet.pods:
            with suppress(AdmissionError):
                self.run(self.rig.admit(pod, [device] if device else ()))

    @rule(pod=pods)
    def start(self, pod: Pod) -> None:
        """The kubelet tries once to start the container, the first time or again."""
        if pod.uid in self.rig.kubelet.pods:
            self.rig.kubelet.stop_container(pod.uid, "main")
            with suppress(StartError):
                self.run(self.rig.kubelet.start_container(pod.uid, "main"))
                self.show_started(pod.uid)

    def show_started(self, uid: str) -> None:
        """The kubelet reports the container to the API server."""
        found = self.rig.api.pods.get(uid)
        if found is not None and self.rig.api.up:
            members = tuple(replace(c, container_id="0" * 64) for c in found.containers)
            self.rig.api.put(replace(found, containers=members))

    @rule()
    def start_all_at_once(self) -> None:
        """Every container that does not run is tried, all at the same time."""

        async def burst() -> None:
            uids = [uid for uid in self.rig.kubelet.pods if (uid, "main") not in self.running()]
            starts = (self.rig.kubelet.start_container(uid, "main") for uid in uids)
            for result in await asyncio.gather(*starts, return_exceptions=True):
                if isinstance(result, BaseException) and not isinstance(result, StartError):
                    raise result

        self.run(burst())
        for uid, _ in self.running():
            self.show_started(uid)

    @rule(pod=consumes(pods))
    def delete(self, pod: Pod) -> None:
        """The pod ends and its object goes."""
        self.rig.kubelet.remove(pod.uid)
        if pod.uid in self.rig.api.pods:
            self.rig.api.delete(pod.uid)

    @rule(pod=pods)
    def succeed(self, pod: Pod) -> None:
        """The pod ends; its object stays."""
        found = self.rig.api.pods.get(pod.uid)
        if found is not None:
            self.rig.kubelet.remove(pod.uid)
            self.rig.api.put(replace(found, phase="Succeeded"))

    @precondition(lambda self: self.daemon)
    @rule()
    def kill_daemon(self) -> None:
        """The daemon's process ends."""
        self.run(self.rig.kill_daemon())
        self.daemon = False

    @precondition(lambda self: not self.daemon)
    @rule()
    def start_daemon(self) -> None:
        """A new process starts."""
        self.run(self.rig.start_daemon())
        self.daemon = True

    @rule()
    def restart_kubelet(self) -> None:
        """The kubelet comes back and knows no plugin yet."""
        self.run(self.rig.kubelet.restart())

    @precondition(lambda self: self.checkpoint)
    @rule()
    def lose_kubelet_state(self) -> None:
        """The kubelet comes back without its notes; running containers go on."""
        self.run(self.rig.kubelet.stop())
        self.rig.kubelet.devices.lose_checkpoint()
        self.run(self.rig.kubelet.start())

    @rule()
    def reboot(self) -> None:
        """The machine starts anew: nothing runs and the CDI directory is empty."""
        self.run(self.rig.kill_daemon())
        self.daemon = False
        self.run(self.rig.kubelet.stop())
        self.rig.kubelet.running.clear()
        shutil.rmtree(self.rig.paths.cdi)
        self.rig.paths.cdi.mkdir()
        self.run(self.rig.kubelet.start())

    @rule(up=st.booleans())
    def api_server(self, up: bool) -> None:
        """The API server goes or comes back."""
        if up:
            self.rig.api.come_back()
        else:
            self.rig.api.up = False

    @rule(seconds=st.sampled_from([0.02, 0.06]))
    def wait(self, seconds: float) -> None:
        """Time passes: registration, reconciliation, collection."""
        self.run(asyncio.sleep(seconds))

    def running(self) -> dict[tuple[str, str], Any]:
        """Containers that run."""
        return self.rig.kubelet.running

    @invariant()
    def each_container_has_its_own_slice(self) -> None:
        """What the runtime gave a container is what its pod was assigned."""
        for (uid, name), started in self.running().items():
            pod = self.rig.api.pods.get(uid)
            if pod is not None:
                (own,) = assignment.parse(pod.annotations[keys.ASSIGNED])[name]
                assert started.env["GPU_FRACTION_DEVICES"] == own.uuid
                assert started.env["GPU_MEMORY_LIMIT_MIB"] == str(own.memory_mib)
        names = [name for started in self.running().values() for name in started.cdi_names]
        assert len(names) == len(set(names)), "a name means one container"

    @invariant()
    def no_card_is_exceeded(self) -> None:
        """By what runs, whatever the daemon believes."""
        for uuid, (memory_mib, containers) in self.rig.sums().items():
            assert memory_mib <= CARD_MIB, uuid
            assert containers <= 4, uuid

    @invariant()
    def files_and_ledger_agree(self) -> None:
        """Every file is in the ledger with just its amounts, and the ledger fits the cards."""
        if not self.daemon:
            return
        books = self.rig.service.books
        for path in self.rig.paths.cdi.glob("*.json"):
            (device,) = json.loads(path.read_bytes())["devices"]
            env = dict(line.split("=", 1) for line in device["containerEdits"]["env"])
            allocation = books.store.get(device["name"])
            if allocation is None or allocation.binding is None:
                continue
            (held,) = books.ledger.shares(allocation.binding.key)
            assert (held.uuid, str(held.memory_mib)) == (
                env["GPU_FRACTION_DEVICES"],
                env["GPU_MEMORY_LIMIT_MIB"],
            )
        for uuid, used in books.ledger.usage().items():
            assert used.memory_mib <= CARD_MIB, uuid
            assert used.slots <= 4, uuid
        assert self.rig.kubelet.devices.overlaps == 0


Node.TestCase.settings = settings(
    max_examples=int(os.environ.get("STATEFUL_EXAMPLES", "10")),
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestNode = Node.TestCase
