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
from hypothesis import HealthCheck, event, settings
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    rule,
)

from gpu_fraction.domain import assignment, keys
from gpu_fraction.node_daemon.state.allocation import Nonce
from gpu_fraction.node_daemon.state.pods import Pod
from tests.support.node_rig import (
    TEMPO,
    AdmissionError,
    Rig,
    StartError,
    inventory,
    rig_card,
    share,
)

T = TypeVar("T")
CARD_MIB = 3_000
CARDS = 2


class Node(RuleBasedStateMachine):
    """One node, its kubelet, its daemon and its API server."""

    pods = Bundle("pods")

    @initialize(checkpoint=st.booleans())
    def boot(self, checkpoint: bool) -> None:
        """A node with two small cards."""
        self.loop = asyncio.new_event_loop()
        self.root = Path(tempfile.mkdtemp(prefix="node-"))
        cards = inventory(*(rig_card(i, memory_mib=CARD_MIB, slots=4) for i in range(CARDS)))
        tempo = replace(
            TEMPO,
            timing=replace(TEMPO.timing, deadline_s=0.15),
            pace=replace(TEMPO.pace, idle_s=0.02),
        )
        self.rig = Rig(self.root, cards, checkpoint=checkpoint, tempo=tempo)
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

    @rule(
        target=pods,
        index=st.one_of(st.none(), st.integers(0, CARDS - 1)),
        memory_mib=st.sampled_from([900, 2_000]),
        device=st.sampled_from([None, None, None, None, "gpu-fraction-slot-0000"]),
        starts=st.booleans(),
    )
    def arrive(
        self,
        index: int | None,
        memory_mib: int,
        device: str | None,
        starts: bool,
    ) -> Pod:
        """A pod comes, assigned to a card or not, perhaps with an id that another pod has."""
        if self.daemon:
            self.run(self.rig.registered())
        if index is None:
            pod = self.rig.pod(limits={keys.CORE_MILLI: 100, keys.MEMORY_MIB: 900})
        else:
            pod = self.rig.pod({"main": [share(index, 100, memory_mib)]})
        with suppress(AdmissionError):
            self.run(self.rig.admit(pod, [device] if device else ()))
        if starts:
            self.start(pod)
        return pod

    @rule(pod=pods)
    def start_once(self, pod: Pod) -> None:
        """The kubelet tries once."""
        self.start(pod)

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

    @rule(pod=consumes(pods), succeeds=st.booleans())
    def end(self, pod: Pod, succeeds: bool) -> None:
        """The pod ends; its object goes, or stays as succeeded."""
        self.rig.kubelet.remove(pod.uid)
        if succeeds:
            self.rig.api.put(replace(self.rig.api.pods[pod.uid], phase="Succeeded"))
        else:
            self.rig.api.delete(pod.uid)

    @rule(
        what=st.sampled_from(
            [
                "daemon dies",
                "kubelet restarts",
                "kubelet knows no pods",
                "kubelet forgets",
                "reboot",
                "api down",
                "api up",
            ]
        )
    )
    def disturb(self, what: str) -> None:
        """Something breaks, and perhaps stays so."""
        match what:
            case "daemon dies":
                self.run(self.rig.kill_daemon())
                self.daemon = False
            case "kubelet restarts":
                self.run(self.rig.kubelet.restart())
            case "kubelet knows no pods":
                self.run(self.rig.kubelet.restart(delivered=False))
            case "kubelet forgets" if self.checkpoint:
                self.run(self.rig.kubelet.stop())
                self.rig.kubelet.devices.lose_checkpoint()
                self.run(self.rig.kubelet.start())
            case "reboot":
                self.reboot()
            case "api down":
                self.rig.api.up = False
            case "api up":
                self.rig.api.come_back()

    def reboot(self) -> None:
        """The machine starts anew: nothing runs and the CDI directory is empty."""
        self.run(self.rig.kill_daemon())
        self.daemon = False
        self.run(self.rig.kubelet.stop())
        self.rig.kubelet.running.clear()
        shutil.rmtree(self.rig.paths.cdi)
        self.rig.paths.cdi.mkdir()
        self.run(self.rig.kubelet.start())

    @rule()
    def recover(self) -> None:
        """Everything works again, and has had the time to notice."""
        self.rig.api.come_back()
        self.rig.kubelet.delivered = True
        if not self.daemon:
            self.run(self.rig.start_daemon())
            self.daemon = True
        self.run(self.rig.ready())
        self.run(asyncio.sleep(0.03))

    @rule(seconds=st.sampled_from([0.01, 0.06]))
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
        event(f"{min(len(self.running()), 4)} containers")
        names = [name for started in self.running().values() for name in started.cdi_names]
        assert len(names) == len(set(names)), "a name means one container"

    @invariant()
    def no_card_is_exceeded(self) -> None:
        """By what runs, whatever the daemon believes."""
        for uuid, (memory_mib, containers) in self.rig.sums().items():
            assert memory_mib <= CARD_MIB, uuid
            assert containers <= 4, uuid

    @invariant()
    def no_name_is_lost(self) -> None:
        """What the kubelet's checkpoint holds is remembered: it asks for no other name."""
        if self.daemon and self.checkpoint:
            for allocated in self.rig.kubelet.devices.allocated:
                for name in allocated.cdi_names:
                    nonce = Nonce(name.partition("=")[2])
                    assert self.rig.service.state.store.get(nonce) is not None

    @invariant()
    def files_and_ledger_agree(self) -> None:
        """Every file is in the ledger with just its amounts, and the ledger fits the cards."""
        if not self.daemon:
            return
        state = self.rig.service.state
        for path in self.rig.paths.cdi.glob("*.json"):
            try:
                (device,) = json.loads(path.read_bytes())["devices"]
            except FileNotFoundError:
                continue  # a thread of the daemon removes files, also between two steps
            env = dict(line.split("=", 1) for line in device["containerEdits"]["env"])
            allocation = state.store.get(device["name"])
            if allocation is None or allocation.binding is None:
                continue
            (held,) = state.ledger.shares(allocation.binding.key)
            assert (held.uuid, str(held.memory_mib)) == (
                env["GPU_FRACTION_DEVICES"],
                env["GPU_MEMORY_LIMIT_MIB"],
            )
        for uuid, used in state.ledger.usage().items():
            assert used.memory_mib <= CARD_MIB, uuid
            assert used.slots <= 4, uuid
        assert self.rig.kubelet.devices.overlaps == 0


Node.TestCase.settings = settings(
    max_examples=int(os.environ.get("STATEFUL_EXAMPLES", "8")),
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestNode = Node.TestCase
