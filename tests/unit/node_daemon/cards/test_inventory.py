"""The published inventory: every card that can be named is in it, whatever another one does."""

import pathlib

import pytest

from gpu_fraction.domain.inventory import Inventory
from gpu_fraction.node_daemon.cards import inventory, inventory_reader, nvml
from gpu_fraction.node_daemon.cards.nvml_driver import Driver
from gpu_fraction.sandbox.nvml.hardware import FakeHardware, FakeLink
from tests.support import fake_gpus


def published(driver: Driver, previous: Inventory | None = None) -> Inventory:
    """Read and build at once."""
    return inventory.build(inventory_reader.read(driver), previous=previous)


def test_a_card_is_published_with_all_that_nvml_says(
    driver: Driver, tmp_path: pathlib.Path
) -> None:
    """Name, size without the driver's part, capability, NUMA node of the slot, driver."""
    slot = tmp_path / "sys/bus/pci/devices/0000:1c:00.0"
    slot.mkdir(parents=True)
    (slot / "numa_node").write_text("1\n")
    built = inventory.build(inventory_reader.read(driver, tmp_path / "sys"))
    card = built.cards[1]
    assert built.driver_version == "615.71.09"
    assert (card.uuid, card.index, card.model) == (
        fake_gpus.uuid(1),
        1,
        "NVIDIA H100 80GB HBM3",
    )
    assert (card.memory_mib, card.core_milli, card.slots) == (81559 - 600, 1000, 32)
    assert (card.compute_capability, card.numa, card.healthy) == ("9.0", 1, True)
    assert built.cards[0].numa == -1


def test_nvlink_counts_lanes_and_pcie_its_level(hardware: FakeHardware, driver: Driver) -> None:
    """Direct links count one by one, inactive ones not; elsewhere the PCIe level is given."""
    hardware.cards.append(fake_gpus.whole_card(2))
    hardware.cards[0].links = [
        FakeLink(link=0, remote=hardware.cards[1].pci),
        FakeLink(link=1, remote=hardware.cards[1].pci),
        FakeLink(link=2, remote=hardware.cards[1].pci, active=False),
    ]
    hardware.cards[1].links = [
        FakeLink(link=0, remote=hardware.cards[0].pci),
        FakeLink(link=1, remote=hardware.cards[0].pci),
    ]
    hardware.machine.pcie = [(fake_gpus.uuid(0), fake_gpus.uuid(2), 20)]
    hardware.apply()
    links = [card.links for card in published(driver).cards]
    assert links[0] == {fake_gpus.uuid(1): 200, fake_gpus.uuid(2): 3}
    assert links[1] == {fake_gpus.uuid(0): 200, fake_gpus.uuid(2): 0}


def test_cards_on_one_nvswitch_are_linked_by_their_common_lanes(
    hardware: FakeHardware, driver: Driver
) -> None:
    """Behind a switch each pair has as many lanes as the narrower of the two."""
    hardware.cards[0].links = [FakeLink(link=i, remote="switch") for i in range(18)]
    hardware.cards[1].links = [FakeLink(link=i, remote="switch") for i in range(12)]
    hardware.apply()
    links = [card.links for card in published(driver).cards]
    assert links == [{fake_gpus.uuid(1): 1200}, {fake_gpus.uuid(0): 1200}]


def test_mig_instances_are_cards_of_their_own(hardware: FakeHardware, driver: Driver) -> None:
    """The divided card itself is not listed; each instance has its share and one slot."""
    hardware.cards[0] = fake_gpus.mig_card(0, instances=2)
    hardware.cards[0].instances[1].slices = 3
    hardware.apply()
    first, second, whole = published(driver).cards
    assert (first.uuid, first.parent) == (fake_gpus.mig_uuid(0, 0), fake_gpus.uuid(0))
    assert (first.memory_mib, first.core_milli, first.slots) == (9984, 142, 1)
    assert first.parent_memory_mib == whole.memory_mib
    assert (first.isolation, first.enforces_memory, first.enforces_compute) == ("mig", True, True)
    assert second.core_milli == 428
    assert whole.uuid == fake_gpus.uuid(1)


def test_a_lost_card_stays_listed_unhealthy(hardware: FakeHardware, driver: Driver) -> None:
    """A card off the bus keeps what was known of it; the other one is as before."""
    before = published(driver)
    hardware.cards[0].lost = True
    hardware.apply()
    after = published(driver, before)
    assert [card.uuid for card in after.cards] == [fake_gpus.uuid(0), fake_gpus.uuid(1)]
    assert (after.cards[0].healthy, after.cards[0].memory_mib) == (False, 80959)
    assert "GPU is lost" in after.cards[0].health_reason
    assert after.cards[1] == before.cards[1]


def test_a_lost_card_in_mig_mode_keeps_its_instances_unhealthy(
    hardware: FakeHardware, driver: Driver
) -> None:
    """Its instances stay listed as instances; the card does not appear beside them."""
    hardware.cards[0] = fake_gpus.mig_card(0, instances=2)
    hardware.apply()
    before = published(driver)
    hardware.cards[0].lost = True
    hardware.apply()
    after = published(driver, before)
    assert [card.uuid for card in after.cards] == [card.uuid for card in before.cards]
    assert [card.healthy for card in after.cards] == [False, False, True]


def test_a_divided_card_that_does_not_tell_its_memory_keeps_what_it_told(
    hardware: FakeHardware, driver: Driver
) -> None:
    """Shares of its instances are shares of that."""
    hardware.cards[0] = fake_gpus.mig_card(0, instances=2)
    hardware.apply()
    before = published(driver)
    hardware.fault("nvmlDeviceGetMemoryInfo_v2", 999, fake_gpus.uuid(0))
    hardware.apply()
    assert published(driver, before).cards == before.cards
    assert published(driver).cards[0].parent_memory_mib == 0


def test_an_instance_removed_on_purpose_is_gone(hardware: FakeHardware, driver: Driver) -> None:
    """Where the card answers and lists its instances, one less is a change of configuration."""
    hardware.cards[0] = fake_gpus.mig_card(0, instances=3)
    hardware.apply()
    before = published(driver)
    del hardware.cards[0].instances[1]
    hardware.apply()
    names = [card.uuid for card in published(driver, before).cards]
    assert names == [fake_gpus.mig_uuid(0, 0), fake_gpus.mig_uuid(0, 2), fake_gpus.uuid(1)]


def test_an_instance_that_does_not_answer_stays(hardware: FakeHardware, driver: Driver) -> None:
    """An unreadable instance is not taken for a removed one."""
    hardware.cards[0] = fake_gpus.mig_card(0, instances=2)
    hardware.apply()
    before = published(driver)
    hardware.fault("nvmlDeviceGetUUID", 999, fake_gpus.mig_uuid(0, 1))
    after = published(driver, before)
    assert [card.healthy for card in after.cards] == [True, False, True]


def test_a_card_whose_mig_mode_is_unknown_gets_no_work(
    hardware: FakeHardware, driver: Driver
) -> None:
    """A divided card takes no work of its own, so the doubt counts against it."""
    hardware.fault("nvmlDeviceGetMigMode", 999, fake_gpus.uuid(0))
    first, second = published(driver).cards
    assert (first.healthy, first.health_reason) == (False, "MIG mode is unknown")
    assert second.healthy


@pytest.mark.parametrize("instances", [0, 3])
def test_a_card_divided_before_is_still_divided_while_its_mode_cannot_be_read(
    hardware: FakeHardware, driver: Driver, instances: int
) -> None:
    """A passing error of one call does not turn instances into a whole card."""
    hardware.cards[0] = fake_gpus.mig_card(0, instances=instances)
    hardware.apply()
    before = published(driver)
    hardware.fault("nvmlDeviceGetMigMode", 999, fake_gpus.uuid(0))
    healthy = [c.uuid for c in published(driver, before).cards if c.healthy]
    assert healthy == [fake_gpus.uuid(1)]


def test_a_card_without_a_size_gets_no_work(hardware: FakeHardware, driver: Driver) -> None:
    """Unknown memory is not zero memory: the card is listed and unhealthy."""
    hardware.fault("nvmlDeviceGetMemoryInfo_v2", 999, fake_gpus.uuid(1))
    card = published(driver).cards[1]
    assert (card.memory_mib, card.healthy) == (0, False)
    assert card.health_reason == "NVML reports no size"


def test_a_passing_error_keeps_what_was_known(hardware: FakeHardware, driver: Driver) -> None:
    """A value that fails once is taken from the last inventory; the card stays in use."""
    before = published(driver)
    hardware.fault("nvmlDeviceGetMemoryInfo_v2", 999)
    hardware.fault("nvmlDeviceGetName", 999)
    assert published(driver, before) == before


def test_older_drivers_without_reserved_memory_give_the_total(
    hardware: FakeHardware, driver: Driver
) -> None:
    """The second version of the memory call is newer than some drivers in use."""
    hardware.fault("nvmlDeviceGetMemoryInfo_v2", 13)
    assert published(driver).cards[0].memory_mib == 81559


def test_a_driver_that_does_not_answer_is_an_error(hardware: FakeHardware, driver: Driver) -> None:
    """Without the number of cards there is no inventory, not an empty one."""
    hardware.fault("nvmlDeviceGetCount_v2", 999)
    with pytest.raises(nvml.NvmlError):
        inventory_reader.read(driver)


def test_health_and_isolation_are_entered(driver: Driver) -> None:
    """A sick card says why; an engine's name, strength and container limit are published."""
    built = inventory.build(
        inventory_reader.read(driver),
        isolation={
            fake_gpus.uuid(0): inventory.CardIsolation("mps", False, True, max_containers=16),
        },
        sick={fake_gpus.uuid(1): "XID 79"},
    )
    first, second = built.cards
    assert (first.isolation, first.enforces_memory, first.enforces_compute) == (
        "mps",
        False,
        True,
    )
    assert (first.slots, first.healthy) == (16, True)
    assert (second.isolation, second.slots) == ("none", 32)
    assert (second.healthy, second.health_reason) == (False, "XID 79")
