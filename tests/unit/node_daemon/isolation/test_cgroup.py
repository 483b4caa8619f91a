"""The cgroup engine: limits of pods, set by the driver, on fake cards and a directory tree."""

import pathlib

import pytest

from gpu_fraction.domain.assignment import CardShare
from gpu_fraction.node_daemon.cards import nvml
from gpu_fraction.node_daemon.cards.nvml_driver import Driver
from gpu_fraction.node_daemon.isolation.cgroup import PROBE, CgroupEngine
from gpu_fraction.node_daemon.isolation.cgroup_paths import Member, PodCgroups, member
from gpu_fraction.node_daemon.isolation.engine import CardFacts, Part, Resource, Strength
from gpu_fraction.node_daemon.state.errors import EngineFailedError
from gpu_fraction.sandbox.nvml.hardware import FakeHardware
from tests.support import fake_gpus
from tests.support.fake_gpus import bound

POD = "3f2e1d0c-aaaa-bbbb-cccc-0123456789ab"
POD_ = POD.replace("-", "_")
ONE, TWO = fake_gpus.uuid(0), fake_gpus.uuid(1)
CARDS = (CardFacts(ONE, 0), CardFacts(TWO, 1))
SYSTEMD = "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{}.slice"


@pytest.fixture
def tree(tmp_path: pathlib.Path) -> pathlib.Path:
    """A cgroup v2 tree with one pod."""
    root = tmp_path / "cgroup"
    (root / SYSTEMD.format(POD_)).mkdir(parents=True)
    (root / "cgroup.controllers").write_text("cpu memory dmem\n")
    return root


@pytest.fixture
def engine(driver: Driver, tree: pathlib.Path) -> CgroupEngine:
    """On that tree."""
    return CgroupEngine(driver, PodCgroups(tree))


def part(container: str, *shares: tuple[str, int]) -> Part:
    """A container's memory on some cards, MiB."""
    held = tuple(CardShare(uuid, 250, mib) for uuid, mib in shares)
    return Part(bound(POD, container, held), held, frozenset({Resource.MEMORY}))


def limit(driver: Driver, tree: pathlib.Path, card: str = ONE) -> int | None:
    """The pod's limit on a card, MiB, None for none."""
    path = PodCgroups(tree).find(POD)
    hard = driver.device_by_uuid(card).memory_limits(str(path)).hard
    return None if hard == nvml.UNLIMITED else hard >> 20


def test_it_enforces_memory_and_not_compute(engine: CgroupEngine) -> None:
    """By the driver, whoever runs in the container."""
    assert engine.enforces(Resource.MEMORY) is Strength.ENFORCED
    assert engine.enforces(Resource.COMPUTE) is Strength.NONE


def test_the_pods_limit_is_the_sum_of_its_containers(
    engine: CgroupEngine, driver: Driver, tree: pathlib.Path
) -> None:
    """It grows with each container, once for each however often it starts, and shrinks again."""
    engine.prepare(part("a", (ONE, 8000)))
    engine.prepare(part("a", (ONE, 8000)))
    assert limit(driver, tree) == 8000
    engine.prepare(part("b", (ONE, 500), (TWO, 700)))
    assert (limit(driver, tree), limit(driver, tree, TWO)) == (8500, 700)
    engine.release(part("a", (ONE, 8000)).binding)
    assert limit(driver, tree) == 500
    engine.release(part("b").binding)
    engine.release(part("b").binding)
    assert (limit(driver, tree), limit(driver, tree, TWO)) == (None, None)


def test_no_soft_limit_is_set(engine: CgroupEngine, hardware: FakeHardware) -> None:
    """A soft limit would stay reserved in the parents when the cgroup is removed."""
    engine.prepare(part("a", (ONE, 8000)))
    engine.probe(CARDS)
    assert {line[2] for line in hardware.written()} == {"0"}


def test_after_a_restart_the_limits_are_as_before(driver: Driver, tree: pathlib.Path) -> None:
    """A new engine that is told of all slices does not lower the limit of a running pod."""
    CgroupEngine(driver, PodCgroups(tree)).prepare(part("a", (ONE, 8000)))
    again = CgroupEngine(driver, PodCgroups(tree))
    again.restore([part("a", (ONE, 8000)), part("b", (ONE, 500))], set())
    assert limit(driver, tree) == 8500
    again.release(part("b").binding)
    assert limit(driver, tree) == 8000


def test_a_pod_without_a_cgroup_is_refused(engine: CgroupEngine) -> None:
    """Nothing to limit is no limit."""
    stranger = bound("00000000-0000-0000-0000-000000000000", "a", ())
    with pytest.raises(EngineFailedError, match="no cgroup"):
        engine.prepare(Part(stranger, (CardShare(ONE, 0, 1),), frozenset({Resource.MEMORY})))


def test_a_limit_that_cannot_be_set_is_an_error_and_tried_again(
    engine: CgroupEngine, hardware: FakeHardware, driver: Driver, tree: pathlib.Path
) -> None:
    """Setting and lifting both: what failed is not forgotten."""
    hardware.fault("nvmlDeviceSetMemoryLimits_v1", 4, ONE)
    with pytest.raises(EngineFailedError, match="memory limit of"):
        engine.prepare(part("a", (ONE, 8000)))
    hardware.heal()
    engine.prepare(part("a", (ONE, 8000)))
    hardware.fault("nvmlDeviceSetMemoryLimits_v1", 999, ONE)
    with pytest.raises(EngineFailedError):
        engine.release(part("a").binding)
    hardware.heal()
    engine.release(part("a").binding)
    assert limit(driver, tree) is None


def test_limits_that_cannot_be_set_again_are_told(
    engine: CgroupEngine, hardware: FakeHardware, driver: Driver, tree: pathlib.Path
) -> None:
    """One card that refuses does not keep the other from its limit."""
    hardware.fault("nvmlDeviceSetMemoryLimits_v1", 999, ONE)
    with pytest.raises(EngineFailedError, match=ONE):
        engine.restore([part("a", (ONE, 8000), (TWO, 700))], set())
    assert limit(driver, tree, TWO) == 700


def test_releasing_a_pod_whose_cgroup_is_gone_is_fine(
    engine: CgroupEngine, tree: pathlib.Path
) -> None:
    """The kubelet removes the cgroup when it likes; the limit went with it."""
    engine.prepare(part("a", (ONE, 8000)))
    found = PodCgroups(tree).find(POD)
    assert found is not None
    found.rmdir()
    engine.release(part("a").binding)
    engine.restore([], set())


def test_the_probe_tries_each_card_and_leaves_nothing(
    engine: CgroupEngine, hardware: FakeHardware, tree: pathlib.Path
) -> None:
    """A card whose driver refuses is named; the scratch cgroup is gone."""
    hardware.fault("nvmlDeviceSetMemoryLimits_v1", 3, TWO)
    assert list(engine.probe(CARDS)) == [TWO]
    assert not (tree / "kubepods.slice" / PROBE).exists()
    hardware.heal()
    assert engine.probe(CARDS) == {}


@pytest.mark.parametrize("driver_version", ["610.10.01", "550.54.15"])
def test_older_drivers_are_unfit(
    engine: CgroupEngine, hardware: FakeHardware, driver_version: str
) -> None:
    """The call is new in R615."""
    hardware.machine.driver = driver_version
    hardware.apply()
    assert set(engine.probe(CARDS)) == {ONE, TWO}


def test_mig_instances_are_unfit(engine: CgroupEngine) -> None:
    """The driver has no limits for them."""
    assert list(engine.probe([CardFacts("MIG-1", mig_instance=True)])) == ["MIG-1"]


def test_a_node_without_cgroup_v2_is_unfit(driver: Driver, tmp_path: pathlib.Path) -> None:
    """Version 1 has no such limits, and without a kubelet's cgroup there are no pods."""
    assert set(CgroupEngine(driver, PodCgroups(tmp_path)).probe(CARDS)) == {ONE, TWO}
    (tmp_path / "cgroup.controllers").write_text("")
    reasons = CgroupEngine(driver, PodCgroups(tmp_path)).probe(CARDS)
    assert reasons[ONE] == "the kubelet's cgroup was not found"


def test_nvidias_hook_gets_the_limit_from_the_environment(
    driver: Driver, tree: pathlib.Path
) -> None:
    """Both variables, always, so that the pod's own never reach it; the hook where wanted."""
    plain = CgroupEngine(driver, PodCgroups(tree)).edits(part("a", (ONE, 300), (TWO, 400)))
    assert plain.env == {"NVIDIA_GPU_MEMORY_REQUEST": "0", "NVIDIA_GPU_MEMORY_LIMIT": "400"}
    assert (plain.hooks, plain.mounts) == ((), ())
    hooked = CgroupEngine(driver, PodCgroups(tree), "/usr/bin/nvidia-cdi-hook")
    assert hooked.edits(part("a", (ONE, 300))).hooks == (
        {
            "hookName": "createRuntime",
            "path": "/usr/bin/nvidia-cdi-hook",
            "args": ["nvidia-cdi-hook", "apply-cuda-memory-limits", "--gpu-id", ONE],
        },
    )


@pytest.mark.parametrize(
    "path",
    [
        f"kubepods.slice/kubepods-pod{POD_}.slice",
        f"kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{POD_}.slice",
        f"kubepods/pod{POD}",
        f"kubepods/burstable/pod{POD}",
        f"kubelet/kubepods/besteffort/pod{POD}",
        f"kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{POD_}.slice",
    ],
)
def test_a_pods_cgroup_is_found_however_the_kubelet_names_it(
    tmp_path: pathlib.Path, path: str
) -> None:
    """Both drivers, all classes of service, with a root of its own or not."""
    (tmp_path / path).mkdir(parents=True)
    assert PodCgroups(tmp_path).find(POD) == tmp_path / path
    assert PodCgroups(tmp_path).find(POD.replace("3", "4")) is None


ID = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            f"0::/{SYSTEMD.format(POD_)}/cri-containerd-{ID}.scope\n",
            Member(POD, ID),
        ),
        (f"0::/kubepods/burstable/pod{POD}/{ID}\n", Member(POD, ID)),
        (f"0::/../../pod{POD}/crio-{ID}.scope/nested/{'f' * 64}\n", Member(POD, "f" * 64)),
        (f"11:memory:/kubepods/pod{POD}/{ID}\n1:name=systemd:/other\n", Member(POD, ID)),
        (f"0::/kubepods/pod{'0' * 32}/{ID}\n", Member("0" * 32, ID)),
        (f"0::/kubepods/pod{POD}\n", Member(POD, "")),
        ("0::/system.slice/sshd.service\n", None),
        ("0::/user.slice/podman-1234.scope\n", None),
        ("", None),
    ],
)
def test_a_process_is_traced_to_its_pod(text: str, found: Member | None) -> None:
    """From ``/proc/<pid>/cgroup`` of either version; processes outside pods are in none."""
    assert member(text) == found
