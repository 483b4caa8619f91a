"""Which engine serves which card, what is published of it, and pods that require it."""

import pathlib

import pytest

from gpu_fraction.domain.assignment import CardShare
from gpu_fraction.domain.request import Isolation
from gpu_fraction.node_daemon.cards import inventory_reader, nvml
from gpu_fraction.node_daemon.cards.inventory import CardIsolation
from gpu_fraction.node_daemon.cards.nvml_driver import Driver
from gpu_fraction.node_daemon.isolation.cgroup import CgroupEngine
from gpu_fraction.node_daemon.isolation.cgroup_paths import PodCgroups
from gpu_fraction.node_daemon.isolation.engine import CardFacts, Engine, Strength
from gpu_fraction.node_daemon.isolation.hami_core import HamiCoreEngine
from gpu_fraction.node_daemon.isolation.node import NodeIsolation, facts
from gpu_fraction.node_daemon.state.allocation import Binding
from gpu_fraction.node_daemon.state.errors import EngineFailedError, NotEnforceableError
from gpu_fraction.sandbox.nvml.hardware import FakeHardware
from tests.support import fake_gpus
from tests.support.fake_gpus import bound
from tests.unit.node_daemon.isolation.conftest import Mps

POD = "3f2e1d0c-aaaa-bbbb-cccc-0123456789ab"
ONE, TWO = fake_gpus.uuid(0), fake_gpus.uuid(1)
CARDS = (CardFacts(ONE, 0, 80959, (9, 0)), CardFacts(TWO, 1, 80959, (9, 0)))
NONE = CardIsolation("none", enforces_memory=False, enforces_compute=False)


@pytest.fixture
def cgroup(driver: Driver, tmp_path: pathlib.Path) -> CgroupEngine:
    """An engine that enforces memory, on a node with one pod."""
    root = tmp_path / "cgroup"
    (root / f"kubepods/pod{POD}").mkdir(parents=True)
    (root / "cgroup.controllers").write_text("")
    return CgroupEngine(driver, PodCgroups(root))


@pytest.fixture
def hami(tmp_path: pathlib.Path) -> HamiCoreEngine:
    """An engine that limits both, in the container."""
    library = tmp_path / "vgpu"
    library.mkdir()
    for name in ("libvgpu.so", "ld.so.preload"):
        (library / name).write_text("")
    return HamiCoreEngine(library, tmp_path / "state")


def slice_(
    demand: Isolation = "preferred", core_milli: int = 250, memory_mib: int = 8000, card: str = ONE
) -> Binding:
    """A container on a card."""
    return bound(POD, "main", (CardShare(card, core_milli, memory_mib),), demand)


def ready(*engines: Engine, **options: Strength) -> NodeIsolation:
    """Assessed, with nothing running."""
    node = NodeIsolation(engines, **options)
    node.assess(CARDS)
    node.restore([])
    return node


def test_without_engines_cards_are_shared_without_limits() -> None:
    """Which is what the inventory says, and the container gets nothing."""
    assert NodeIsolation([]).assess(CARDS) == {ONE: NONE, TWO: NONE}
    edits = ready().prepare(slice_())
    assert (edits.env, edits.mounts) == ({}, ())


def test_the_strongest_engine_limits_memory_and_another_compute(
    cgroup: CgroupEngine, hami: HamiCoreEngine
) -> None:
    """Whatever the order; the one that is overruled in memory does not limit it as well."""
    for engines in ((cgroup, hami), (hami, cgroup)):
        node = ready(*engines)
        assert node.assess(CARDS)[ONE] == CardIsolation(
            "cgroup", enforces_memory=True, enforces_compute=False
        )
        env = node.prepare(slice_()).env
        assert env["NVIDIA_GPU_MEMORY_LIMIT"] == "8000"
        assert env["CUDA_DEVICE_SM_LIMIT"] == "25"
        assert "CUDA_DEVICE_MEMORY_LIMIT_0" not in env


def test_an_engine_that_limits_both_is_asked_once(hami: HamiCoreEngine) -> None:
    """What it makes and mounts is there once."""
    places = [mount["containerPath"] for mount in ready(hami).prepare(slice_()).mounts]
    assert len(places) == len(set(places))


def test_each_card_has_the_engines_that_can_serve_it(
    cgroup: CgroupEngine, hami: HamiCoreEngine, hardware: FakeHardware
) -> None:
    """One card's driver refuses limits: it falls back, the other does not."""
    hardware.fault("nvmlDeviceSetMemoryLimits_v1", 3, TWO)
    published = NodeIsolation([cgroup, hami]).assess(CARDS)
    assert {uuid: one.name for uuid, one in published.items()} == {ONE: "cgroup", TWO: "hami-core"}


def test_a_card_can_have_engines_of_its_own(
    cgroup: CgroupEngine, hami: HamiCoreEngine, hardware: FakeHardware
) -> None:
    """An engine is not even tried on a card that may not have it."""
    for default in ([cgroup, hami], []):
        special = {ONE: [hami], TWO: []} if default else {ONE: [hami]}
        published = NodeIsolation(default, special=special).assess(CARDS)
        assert [published[uuid].name for uuid in (ONE, TWO)] == ["hami-core", "none"]
    assert hardware.written() == []


def test_a_container_on_two_cards_gets_what_each_needs(
    cgroup: CgroupEngine, hami: HamiCoreEngine, hardware: FakeHardware
) -> None:
    """Limits that go by position count all of its cards."""
    hardware.fault("nvmlDeviceSetMemoryLimits_v1", 3, TWO)
    node = ready(cgroup, hami)
    both = (CardShare(ONE, 250, 8000), CardShare(TWO, 300, 9000))
    env = node.prepare(bound(POD, "main", both)).env
    assert env["NVIDIA_GPU_MEMORY_LIMIT"] == "8000"
    assert env["CUDA_DEVICE_MEMORY_LIMIT_1"] == "9000m"
    assert env["CUDA_DEVICE_SM_LIMIT"] == "25"


def test_cooperation_counts_as_enforcement_only_where_the_node_says_so(
    hami: HamiCoreEngine,
) -> None:
    """By default what a program can get round is not called enforced."""
    strict = NodeIsolation([hami]).assess(CARDS)[ONE]
    assert (strict.name, strict.enforces_memory, strict.enforces_compute) == (
        "hami-core",
        False,
        False,
    )
    trusting = NodeIsolation([hami], Strength.COOPERATIVE).assess(CARDS)[ONE]
    assert (trusting.enforces_memory, trusting.enforces_compute) == (True, True)


@pytest.mark.parametrize(
    ("core_milli", "memory_mib", "allowed"),
    [(0, 8000, True), (1000, 8000, True), (250, 8000, False), (250, 80959, False)],
)
def test_a_pod_that_requires_isolation_never_starts_without(
    cgroup: CgroupEngine, core_milli: int, memory_mib: int, *, allowed: bool
) -> None:
    """Memory is enforced here and compute is not: only who asks for no compute limit may."""
    node, one = ready(cgroup), slice_("required", core_milli, memory_mib)
    if allowed:
        node.prepare(one)
        return
    with pytest.raises(NotEnforceableError, match=r"does not enforce compute \(isolation: none\)"):
        node.prepare(one)


def test_nothing_is_set_up_for_a_pod_that_is_refused(
    cgroup: CgroupEngine, hardware: FakeHardware
) -> None:
    """The refusal comes first."""
    node = ready(cgroup)
    before = hardware.written()
    with pytest.raises(NotEnforceableError):
        node.prepare(slice_("required"))
    assert hardware.written() == before


def test_a_whole_card_needs_no_enforcement(hami: HamiCoreEngine) -> None:
    """Nobody else is on it."""
    ready(hami).prepare(slice_("required", 1000, 80959))


def test_mig_instances_need_no_engine(
    hardware: FakeHardware, driver: Driver, cgroup: CgroupEngine
) -> None:
    """The hardware keeps their shares, also for pods that require it."""
    hardware.cards[0] = fake_gpus.mig_card(0, instances=1)
    hardware.apply()
    node = NodeIsolation([cgroup])
    node.assess(facts(inventory_reader.read(driver)))
    node.restore([])
    edits = node.prepare(slice_("required", card=fake_gpus.mig_uuid(0, 0)))
    assert edits.env == {}


def test_who_asks_for_no_isolation_is_spared_what_he_could_get_round(
    cgroup: CgroupEngine, hami: HamiCoreEngine
) -> None:
    """Not the limit that shields the others from him."""
    env = ready(cgroup, hami).prepare(slice_("none")).env
    assert set(env) == {"NVIDIA_GPU_MEMORY_REQUEST", "NVIDIA_GPU_MEMORY_LIMIT"}


def test_an_engine_that_fails_keeps_the_container_from_starting(
    cgroup: CgroupEngine, hami: HamiCoreEngine, hardware: FakeHardware
) -> None:
    """It does not fall back to less, also when it is assessed again meanwhile."""
    node = ready(cgroup, hami)
    hardware.fault("nvmlDeviceSetMemoryLimits_v1", 999)
    assert node.assess(CARDS)[ONE].name == "cgroup"
    with pytest.raises(EngineFailedError):
        node.prepare(slice_())
    hardware.heal()
    node.prepare(slice_())


def test_an_engine_that_appears_later_is_used(
    cgroup: CgroupEngine, hami: HamiCoreEngine, hardware: FakeHardware
) -> None:
    """A card may get better, for example when its control daemon comes up."""
    hardware.fault("nvmlDeviceSetMemoryLimits_v1", 999)
    node = ready(cgroup, hami)
    assert node.assess(CARDS)[ONE].name == "hami-core"
    hardware.heal()
    assert node.assess(CARDS)[ONE].name == "cgroup"


def test_a_better_engine_leaves_what_a_running_container_has(
    hami: HamiCoreEngine, mps: Mps, driver: Driver
) -> None:
    """It was started with the weaker one, whose files it uses until it ends."""
    hidden = mps.binary.rename(mps.binary.with_suffix(".not-yet"))
    node = ready(mps.engine(driver), hami)
    [own, *_] = [m["hostPath"] for m in node.prepare(slice_()).mounts]
    hidden.rename(mps.binary)
    assert node.assess(CARDS)[ONE].enforces_compute
    node.repair()
    assert pathlib.Path(str(own)).is_dir()
    node.release(slice_())
    assert not pathlib.Path(str(own)).exists()


def test_cards_that_do_not_answer_keep_their_engines(cgroup: CgroupEngine) -> None:
    """A label that flickers with a card's health would move pods about."""
    node = ready(cgroup)
    assert set(node.assess(CARDS[1:])) == {ONE, TWO}


def test_nothing_is_prepared_before_what_runs_is_known(cgroup: CgroupEngine) -> None:
    """A pod's limit is the sum of its containers; with some unknown it would be too low."""
    node = NodeIsolation([cgroup])
    node.assess(CARDS)
    node.repair()
    with pytest.raises(EngineFailedError, match="not ready"):
        node.prepare(slice_())


def test_lost_limits_are_made_again(
    cgroup: CgroupEngine, driver: Driver, tmp_path: pathlib.Path
) -> None:
    """Those of the slices that are set up, and of no others."""
    node = ready(cgroup)
    other = bound(POD, "other", (CardShare(ONE, 100, 500),))
    node.prepare(slice_())
    node.prepare(other)
    node.release(other)
    path = tmp_path / f"cgroup/kubepods/pod{POD}"
    driver.device(0).set_memory_limits(str(path), 0, nvml.UNLIMITED)
    node.repair()
    assert driver.device(0).memory_limits(str(path)).hard == 8000 << 20


def test_a_restore_that_fails_does_not_stop_the_node(
    cgroup: CgroupEngine, hami: HamiCoreEngine, hardware: FakeHardware
) -> None:
    """It is told, and containers whose engines work can start."""
    node = NodeIsolation([cgroup, hami])
    node.assess(CARDS)
    hardware.fault("nvmlDeviceSetMemoryLimits_v1", 999, ONE)
    with pytest.raises(EngineFailedError):
        node.restore([slice_()])
    node.prepare(slice_(card=TWO))


def test_a_release_that_fails_is_tried_again(cgroup: CgroupEngine, hardware: FakeHardware) -> None:
    """Until then the slice counts as set up."""
    node = ready(cgroup)
    node.prepare(slice_())
    hardware.fault("nvmlDeviceSetMemoryLimits_v1", 999)
    with pytest.raises(EngineFailedError):
        node.release(slice_())
    hardware.heal()
    node.release(slice_())
    assert hardware.written()[-1][3] == str(nvml.UNLIMITED)


def test_facts_leave_out_lost_cards(hardware: FakeHardware, driver: Driver) -> None:
    """Asking them would only fail; the others are given with their size and capability."""
    hardware.cards[0].lost = True
    hardware.cards[1].compute_capability = None
    hardware.apply()
    assert facts(inventory_reader.read(driver)) == (CardFacts(TWO, 1, 80959, (0, 0)),)
