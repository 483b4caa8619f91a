"""Whatever one card does, the others stay listed."""

import pathlib
import tempfile
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_fraction.domain import inventory as wire
from gpu_fraction.node_daemon.cards import inventory, inventory_reader, nvml_driver
from gpu_fraction.node_daemon.cards.nvml_driver import Driver
from gpu_fraction.sandbox.nvml.hardware import VARIABLE, FakeHardware, Fault
from tests.support import fake_gpus

CARDS = 4
CODES = st.sampled_from([1, 2, 3, 4, 6, 7, 9, 10, 13, 15, 16, 17, 20, 999, 4242])
FUNCTIONS = st.sampled_from(
    [
        "*",
        "nvmlDeviceGetHandleByIndex_v2",
        "nvmlDeviceGetUUID",
        "nvmlDeviceGetName",
        "nvmlDeviceGetMemoryInfo",
        "nvmlDeviceGetMemoryInfo_v2",
        "nvmlDeviceGetCudaComputeCapability",
        "nvmlDeviceGetPciInfo_v3",
        "nvmlDeviceGetMigMode",
        "nvmlDeviceGetMaxMigDeviceCount",
        "nvmlDeviceGetMigDeviceHandleByIndex",
        "nvmlDeviceGetAttributes_v2",
        "nvmlDeviceGetGpuInstanceId",
        "nvmlDeviceGetNvLinkState",
        "nvmlDeviceGetTopologyCommonAncestor",
    ]
)


@pytest.fixture(scope="module")
def machine() -> Iterator[tuple[FakeHardware, Driver, wire.Inventory]]:
    """Three whole cards and one in MIG mode, and their inventory while all is well."""
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        hardware = fake_gpus.plug_in(pathlib.Path(directory), CARDS)
        hardware.cards[3] = fake_gpus.mig_card(3, instances=2)
        hardware.apply()
        patch.setenv(VARIABLE, str(hardware.directory))
        driver = nvml_driver.open_driver(5.0)
        yield hardware, driver, inventory.build(inventory_reader.read(driver))


@settings(max_examples=80, deadline=None)
@given(
    victim=st.integers(0, CARDS - 1),
    faults=st.lists(st.tuples(FUNCTIONS, CODES), max_size=4),
    lost=st.booleans(),
    known=st.booleans(),
)
def test_faults_of_one_card_never_hide_another(
    machine: tuple[FakeHardware, Driver, wire.Inventory],
    victim: int,
    faults: list[tuple[str, int]],
    *,
    lost: bool,
    known: bool,
) -> None:
    """Any errors of any calls on one card: the others are listed as if nothing had happened.

    Where the victim was published before it stays listed too, and what is published can always
    be read by the scheduler.
    """
    hardware, driver, before = machine
    hardware.machine.faults.clear()
    for index, card in enumerate(hardware.cards):
        card.lost = lost and index == victim
    hardware.machine.faults.extend(
        Fault(function=function, code=code, uuid=name)
        for function, code in faults
        for name in names_of(hardware, victim)
    )
    hardware.apply()
    after = inventory.build(inventory_reader.read(driver), previous=before if known else None)
    assert untouched(after, victim) == untouched(before, victim)
    if known:
        assert {c.uuid for c in after.cards} >= {c.uuid for c in before.cards if c.parent == ""}
    assert wire.parse(wire.render(after)).cards == after.cards
    assert all(card.memory_mib > 0 for card in after.cards if card.healthy)


def names_of(hardware: FakeHardware, index: int) -> list[str]:
    """The card and its instances."""
    card = hardware.cards[index]
    return [card.uuid, *(instance.uuid for instance in card.instances)]


def untouched(built: wire.Inventory, victim: int) -> list[tuple[object, ...]]:
    """What is published of the cards other than the victim, but for their links to it."""
    return [
        (c.uuid, c.index, c.model, c.memory_mib, c.core_milli, c.slots, c.healthy, c.parent)
        for c in built.cards
        if c.index != victim
    ]
