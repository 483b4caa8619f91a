"""Pods come and go while the parts of the node are killed."""

import contextlib
import json
import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gpu_fraction.domain import dra
from tests.cluster.daemon import Daemon, beside
from tests.cluster.gpu_node.dra.rig import ON_A_NODE, pod, template, unschedulable
from tests.cluster.harness.kubectl import Kubectl

if TYPE_CHECKING:
    from tests.cluster.harness.process import Process

pytestmark = ON_A_NODE


SHARES = (100, 250, 333, 500, 1000)
"""Thousandths that the random life asks for."""

STEPS = int(os.environ.get("GPU_FRACTION_DRA_STEPS", "100"))
"""Creates and deletes of the random life."""


class Watch(threading.Thread):
    """Looks all the time at what containers can start with, which is the CDI files alone."""

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        self.folder = folder
        self.most: dict[str, int] = {}
        self.stopped = threading.Event()

    def run(self) -> None:
        """Keep the largest sum of each card, thousandths, until stopped."""
        while not self.stopped.wait(0.01):
            for uuid, milli in self._sums().items():
                self.most[uuid] = max(self.most.get(uuid, 0), milli)

    def _sums(self) -> dict[str, int]:
        """The sums of files that were there together; nothing where one went meanwhile."""
        files = list(self.folder.glob("gpu-fraction-slice_*.json"))
        sums: dict[str, int] = {}
        with contextlib.suppress(FileNotFoundError):
            for file in files:
                (device,) = json.loads(file.read_text())["devices"]
                env = dict(line.split("=", 1) for line in device["containerEdits"]["env"])
                uuid, share = env["GPU_FRACTION_DEVICES"], float(env["GPU_FRACTION"])
                sums[uuid] = sums.get(uuid, 0) + round(1000 * share)
            return sums if all(file.exists() for file in files) else {}
        return {}


@pytest.fixture
def second(daemon: Daemon) -> Iterator[Daemon]:
    """A daemon that waits for the end of the other, or works since then."""
    made = beside(daemon, "second", "--pod-uid=second")
    made.process.start()
    try:
        yield made
    finally:
        made.process.stop()


@pytest.mark.timeout(1800)
def test_no_card_is_overdrawn_whatever_ends_when(
    daemon: Daemon, second: Daemon, kubectl: Kubectl
) -> None:
    """Pods come and go while kubelet, API server and two daemons that follow each other die."""
    rng = random.Random(7)
    node, plane = daemon.node, daemon.node.plane
    for milli in SHARES:
        amounts = {dra.CORES: str(milli), dra.MEMORY_PPM: str(1000 * milli)}
        kubectl.apply(template(f"m{milli}", amounts))
    watch = Watch(node.cdi_dir)
    watch.start()
    down: list[Process] = []
    names: list[str] = []
    for step in range(STEPS):
        if names and rng.random() < 0.4:
            name = names.pop(rng.randrange(len(names)))
            force = ("--grace-period=0", "--force") if rng.random() < 0.5 else ()
            kubectl.run("delete", "pod", name, "--wait=false", *force)
        else:
            names.append(f"life-{step}")
            made = pod(names[-1], f"m{rng.choice(SHARES)}", grace_s=rng.choice((0, 1)))
            kubectl.run("create", "-f", "-", stdin=made)
        if down and rng.random() < 0.5:
            down.pop().start()
        if not down and rng.random() < 0.15:
            daemons = (daemon.process, second.process)
            down.append(rng.choice((node.kubelet, *daemons, plane.api_server)))
            down[0].kill()
    for process in down:
        process.start()
    plane.api_server.wait_healthy()
    node.wait_ready()
    second.process.stop()
    daemon.wait_ready()

    def settled() -> bool:
        pods = kubectl.json("get", "pods")["items"]
        return all(
            one["status"].get("phase") == "Running"
            or unschedulable(kubectl, one["metadata"]["name"])
            for one in pods
            if "deletionTimestamp" not in one["metadata"]
        )

    daemon.process.wait_until(settled, 300, "settled")
    kubectl("delete", "pod", "--all", "--wait=true", "--timeout=300s", timeout_s=320)
    daemon.process.wait_until(lambda: not daemon.slice_files(), 120, "without shares")
    watch.stopped.set()
    watch.join()
    assert watch.most.keys() == {*daemon.uuids}
    assert max(watch.most.values()) <= 1000, watch.most
    for uuid in daemon.uuids:
        assert daemon.metric(f'gpu_fraction_card_allocated_core_milli{{uuid="{uuid}"}}') == 0
