"""The hami-core engine: mounts and environment, and directories of containers."""

import pathlib

import pytest

from gpu_fraction.domain.assignment import CardShare
from gpu_fraction.node_daemon.isolation.engine import CardFacts, Part, Resource, Strength
from gpu_fraction.node_daemon.isolation.hami_core import HamiCoreEngine
from gpu_fraction.node_daemon.state.errors import EngineFailedError
from tests.support.fake_gpus import bound

CARDS = (CardFacts("GPU-1"), CardFacts("MIG-1", mig_instance=True))


@pytest.fixture
def engine(tmp_path: pathlib.Path) -> HamiCoreEngine:
    """With the library on the host."""
    library = tmp_path / "vgpu"
    library.mkdir()
    (library / "libvgpu.so").write_text("")
    (library / "ld.so.preload").write_text("/usr/local/vgpu/libvgpu.so\n")
    return HamiCoreEngine(library, tmp_path / "state")


def part(*shares: CardShare, resources: frozenset[Resource] = frozenset(Resource)) -> Part:
    """Of a container with these cards."""
    return Part(bound("uid", "main", shares), shares, resources)


TWO = (CardShare("GPU-1", 250, 8000), CardShare("GPU-2", 500, 9000))


def test_limits_go_by_the_position_of_the_card(engine: HamiCoreEngine) -> None:
    """Memory for each; compute has one value, the smallest, and the pod cannot switch it off."""
    env = engine.edits(part(*TWO)).env
    assert env["CUDA_DEVICE_MEMORY_LIMIT_0"] == "8000m"
    assert env["CUDA_DEVICE_MEMORY_LIMIT_1"] == "9000m"
    assert env["CUDA_DEVICE_SM_LIMIT"] == "25"
    assert env["CUDA_DISABLE_CONTROL"] == "false"


def test_compute_beside_another_memory_engine(engine: HamiCoreEngine) -> None:
    """Then memory is not limited twice; a small share is not taken for none."""
    env = engine.edits(
        part(CardShare("GPU-1", 5, 8000), resources=frozenset({Resource.COMPUTE}))
    ).env
    assert env["CUDA_DEVICE_SM_LIMIT"] == "1"
    assert not [name for name in env if "MEMORY_LIMIT" in name]


def test_unlimited_compute_is_not_limited(engine: HamiCoreEngine) -> None:
    """0 thousandths means that none was asked for."""
    assert "CUDA_DEVICE_SM_LIMIT" not in engine.edits(part(CardShare("GPU-1", 0, 8000))).env


def test_the_library_is_mounted_and_only_its_own_directory_is_writable(
    engine: HamiCoreEngine, tmp_path: pathlib.Path
) -> None:
    """All mounts exist after ``prepare``; the lock is shared, as the library wants."""
    one = part(*TWO)
    engine.prepare(one)
    mounts = {m["containerPath"]: m for m in engine.edits(one).mounts}
    assert set(mounts) == {
        "/usr/local/vgpu",
        "/usr/local/vgpu/libvgpu.so",
        "/etc/ld.so.preload",
        "/tmp/vgpulock",
    }
    assert all(pathlib.Path(str(m["hostPath"])).exists() for m in mounts.values())
    writable = [path for path, m in mounts.items() if "rw" in str(m["options"])]
    assert writable == ["/usr/local/vgpu", "/tmp/vgpulock"]
    own = pathlib.Path(str(mounts["/usr/local/vgpu"]["hostPath"]))
    assert own.parent == tmp_path / "state/containers"
    assert own.stat().st_mode & 0o777 == 0o777


def test_directories_go_with_their_containers(
    engine: HamiCoreEngine, tmp_path: pathlib.Path
) -> None:
    """At release, or at the next restart where that was missed."""
    one, other = part(*TWO), Part(bound("uid", "other", TWO), TWO, frozenset(Resource))
    for each in (one, other):
        engine.prepare(each)
    engine.release(one.binding)
    engine.release(one.binding)
    kept = {path.name for path in (tmp_path / "state/containers").iterdir()}
    assert kept == {other.binding.tag}
    engine.restore([one], {one.binding.tag})
    assert {p.name for p in (tmp_path / "state/containers").iterdir()} == {one.binding.tag}


def test_a_full_disk_is_an_error_of_the_engine(tmp_path: pathlib.Path) -> None:
    """And not one of the daemon."""
    (tmp_path / "state").write_text("a file where a directory should be")
    with pytest.raises(EngineFailedError, match="Not a directory"):
        HamiCoreEngine(tmp_path, tmp_path / "state").prepare(part(*TWO))


def test_it_serves_whole_cards_where_the_library_is(
    engine: HamiCoreEngine, tmp_path: pathlib.Path
) -> None:
    """It limits both, as far as programs cooperate."""
    assert list(engine.probe(CARDS)) == ["MIG-1"]
    assert {engine.enforces(r) for r in Resource} == {Strength.COOPERATIVE}
    (tmp_path / "vgpu/ld.so.preload").unlink()
    assert set(engine.probe(CARDS)) == {"GPU-1", "MIG-1"}
