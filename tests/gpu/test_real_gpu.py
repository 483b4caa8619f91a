"""Inventory, health and use of a real card."""

import os
import pathlib
import queue
import re
import subprocess
import sys
from collections.abc import Callable

import pytest

from gpu_fraction.domain import inventory as wire
from gpu_fraction.node_daemon.cards import (
    health_events,
    health_watch,
    inventory,
    inventory_reader,
    nvml,
)
from gpu_fraction.node_daemon.cards.nvml_device import Device
from gpu_fraction.node_daemon.cards.nvml_driver import Driver
from gpu_fraction.node_daemon.cluster import inventory_node
from gpu_fraction.node_daemon.isolation.usage import UsageReader
from tests.support import fake_gpus

PROGRAM = pathlib.Path(__file__).with_name("cuda_program.py")
Record = Callable[..., None]


def test_the_inventory_is_complete(driver: Driver, record: Record) -> None:
    """Every card is listed with a name, a size and a capability, and the scheduler can read it."""
    reading = inventory_reader.read(driver)
    built = inventory.build(reading)
    assert reading.unreadable == {}
    assert [card.problems for card in reading.cards] == [()] * driver.count()
    for card in built.cards:
        assert re.fullmatch(r"(GPU|MIG)-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", card.uuid)
        assert card.memory_mib > 1000
        assert re.fullmatch(r"\d+\.\d", card.compute_capability)
        assert card.healthy
    assert wire.parse(wire.render(built)).cards == built.cards
    first = built.cards[0]
    record(
        model=first.model,
        memory_mib=first.memory_mib,
        numa=first.numa,
        links=dict(first.links),
        labels=dict(inventory_node.desired(built).labels),
    )


def test_it_agrees_with_nvidia_smi(driver: Driver) -> None:
    """The same cards under the same names."""
    try:
        listed = subprocess.run(
            ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout.split()
    except (OSError, subprocess.CalledProcessError) as e:
        pytest.skip(f"nvidia-smi: {e}")
    assert [card.uuid for card in inventory_reader.read(driver).cards] == listed


def test_health_events_are_registered_and_polls_are_good(driver: Driver, record: Record) -> None:
    """A healthy card is polled healthy, and NVML takes the registration."""
    watch = driver.watch([driver.device(0)], nvml.HEALTH_EVENTS)
    unwatched = dict(watch.unwatched)
    watch.close()
    events: queue.SimpleQueue[health_events.Event] = queue.SimpleQueue()
    running = health_watch.HealthWatch(driver, events.put, poll_interval_s=0.5)
    running.start()
    found = events.get(timeout=30)
    running.stop()
    record(unwatched=unwatched, first=repr(found))
    assert unwatched == {}
    assert isinstance(found, health_events.Poll)
    assert (found.lost, found.error, found.recovery_action) in {("", "", 0), ("", "", None)}


def test_memory_of_a_process_is_seen(
    driver: Driver,
    device: Device,
    tmp_path: pathlib.Path,
    cuda: Callable[..., object],
    record: Record,
) -> None:
    """A program that holds 512 MiB shows with at least that, under its own process id."""
    cuda("processors")  # skips where CUDA does not run
    flag = tmp_path / "held"
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": device.uuid()}
    with subprocess.Popen(
        [sys.executable, str(PROGRAM), "hold", "512", str(flag)],
        env=environment,
        stdout=subprocess.DEVNULL,
    ) as child:
        try:
            assert fake_gpus.eventually(flag.exists, within_s=60)
            held = {p.pid: p.memory >> 20 for p in device.processes()}
            [card] = UsageReader(driver).read([device.uuid()])
        finally:
            flag.unlink(missing_ok=True)
    record(processes=held, others_mib=card.others.memory_bytes >> 20)
    if child.pid not in held:
        pytest.skip("NVML shows no process ids here: another PID namespace than the driver's")
    assert held[child.pid] >= 512
