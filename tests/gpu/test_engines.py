"""Each engine that the driver supports, against a CUDA program that wants more than its share."""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gpu_fraction.domain.assignment import CardShare
from gpu_fraction.node_daemon.cards import inventory_reader
from gpu_fraction.node_daemon.cards.nvml_device import Device
from gpu_fraction.node_daemon.cards.nvml_driver import Driver
from gpu_fraction.node_daemon.isolation.cgroup import CgroupEngine
from gpu_fraction.node_daemon.isolation.cgroup_paths import ROOT, PodCgroups
from gpu_fraction.node_daemon.isolation.engine import CardFacts, Part, Resource
from gpu_fraction.node_daemon.isolation.mps import IN_CONTAINER, MpsEngine
from gpu_fraction.node_daemon.isolation.mps_control import BINARY, MpsControl, MpsVersion
from gpu_fraction.node_daemon.isolation.mps_daemon import MpsDaemon
from gpu_fraction.node_daemon.isolation.mps_namespaces import SERVER, MpsNamespaceEngine
from gpu_fraction.node_daemon.isolation.node import facts
from tests.support import fake_gpus
from tests.support.fake_gpus import bound

PROGRAM = pathlib.Path(__file__).with_name("cuda_program.py")
LIMIT_MIB = 4096
ROOM_MIB = 1024
"""What a context itself may take of a limit."""

Cuda = Callable[..., dict[str, Any]]
Record = Callable[..., None]


@pytest.fixture
def card(driver: Driver, device: Device) -> CardFacts:
    """The first card."""
    if os.geteuid():
        pytest.skip("engines need root")
    uuid = device.uuid()
    return next(f for f in facts(inventory_reader.read(driver)) if f.uuid == uuid)


def part(card: CardFacts, container: str = "main", core_milli: int = 250) -> Part:
    """A quarter of the card's compute and the limit of memory."""
    shares = (CardShare(card.uuid, core_milli, LIMIT_MIB),)
    return Part(bound(f"pod-{container}", container, shares), shares, frozenset(Resource))


@pytest.fixture
def cgroups() -> Iterator[Callable[[str], pathlib.Path]]:
    """Makes cgroups that look like pods' to the engine, and removes them."""
    made: list[pathlib.Path] = []

    def make(pod_uid: str) -> pathlib.Path:
        path = ROOT / "kubepods" / f"pod{pod_uid}"
        path.mkdir(parents=True)
        made.append(path)
        return path

    yield make
    for path in made:
        path.rmdir()
    if made and not any(p.is_dir() for p in (ROOT / "kubepods").iterdir()):
        (ROOT / "kubepods").rmdir()


def test_cgroup_limits_memory_and_leaves_another_slice_alone(
    driver: Driver,
    card: CardFacts,
    cuda: Cuda,
    cgroups: Callable[[str], pathlib.Path],
    tmp_path: pathlib.Path,
    record: Record,
) -> None:
    """Over-allocation fails at the limit while another pod holds all of its own share."""
    if not PodCgroups().unified:
        pytest.skip("no cgroup v2 on this machine")
    if any(PodCgroups().kubepods()):
        pytest.skip("a kubelet runs here: its cgroups are not for tests")
    one, other = part(card, "one"), part(card, "other")
    try:
        paths = [cgroups(p.binding.uid) for p in (one, other)]
    except OSError as e:
        pytest.skip(f"cgroups cannot be made: {e}")
    engine = CgroupEngine(driver, PodCgroups())
    unfit = engine.probe([card])
    if unfit:
        pytest.skip(f"driver {driver.version()}: {unfit[card.uuid]}")
    for each in (one, other):
        engine.prepare(each)
    flag = tmp_path / "held"
    hold = f"echo $$ > {paths[1]}/cgroup.procs && exec {sys.executable} {PROGRAM} hold"
    with subprocess.Popen(
        ["sh", "-c", f"{hold} {LIMIT_MIB - ROOM_MIB} {flag}"],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": card.uuid},
    ):
        try:
            assert fake_gpus.eventually(flag.exists, within_s=60)
            neighbour = flag.read_text()
            got = cuda("allocate", card.memory_mib, cgroup=str(paths[0]))
        finally:
            flag.unlink(missing_ok=True)
    for each in (one, other):
        engine.release(each.binding)
    record(limit_mib=LIMIT_MIB, neighbour_held=neighbour, **got)
    assert neighbour == "1"
    assert LIMIT_MIB - ROOM_MIB <= got["got_mib"] <= LIMIT_MIB


@pytest.fixture
def mps(request: pytest.FixtureRequest) -> Iterator[MpsEngine]:
    """An engine with a control daemon of its own, ended with the test; no compute mode is set."""
    if shutil.which(BINARY) is None:
        pytest.skip(f"no {BINARY} on this machine")
    protocol: MpsVersion = request.param
    directory = pathlib.Path(tempfile.mkdtemp(prefix="mps"))
    control = MpsControl(directory / "pipe", protocol)
    daemon = MpsDaemon(control, directory / "state")
    kind = MpsEngine if protocol == 2 else MpsNamespaceEngine
    yield kind(None, control, daemon)
    if control.answers():
        subprocess.run(
            [BINARY, *(["-p", "3", "-q"] if protocol == 3 else [])],
            input="quit\n",
            text=True,
            env=control.environment(),
            timeout=60,
            check=False,
        )
    shutil.rmtree(directory, ignore_errors=True)


def environment(engine: MpsEngine, one: Part) -> dict[str, str]:
    """The container's environment, with its paths as this machine has them."""
    edits = engine.edits(one)
    places = {str(m["containerPath"]): str(m["hostPath"]) for m in edits.mounts}
    return {**edits.env, "CUDA_MPS_PIPE_DIRECTORY": places[IN_CONTAINER]}


@pytest.mark.parametrize("mps", [2, 3], indirect=True)
def test_mps_limits_processors_and_memory(
    mps: MpsEngine, driver: Driver, card: CardFacts, cuda: Cuda, record: Record
) -> None:
    """A quarter of the processors, measurably slower for it; memory ends at the limit."""
    unfit = mps.probe([card])
    if unfit:
        pytest.skip(f"driver {driver.version()}: {unfit[card.uuid]}")
    one = part(card)
    mps.prepare(one)
    inside = environment(mps, one)
    whole = cuda("processors")["processors"]
    few = cuda("processors", env=inside)["processors"]
    blocks = whole * 8
    fast, slow = cuda("spin", blocks)["ms"], cuda("spin", blocks, env=inside)["ms"]
    memory = cuda("allocate", card.memory_mib, env=inside)
    record(server=SERVER, whole=whole, few=few, whole_ms=fast, few_ms=slow, **memory)
    mps.release(one.binding)
    assert 0 < few <= whole * 0.27
    assert slow > fast * 2
    assert LIMIT_MIB - ROOM_MIB <= memory["got_mib"] <= LIMIT_MIB


@pytest.mark.parametrize("mps", [3], indirect=True)
def test_a_program_cannot_raise_its_share_of_processors(
    mps: MpsEngine, driver: Driver, card: CardFacts, cuda: Cuda, record: Record
) -> None:
    """Version 3 holds against the container's environment."""
    unfit = mps.probe([card])
    if unfit:
        pytest.skip(f"driver {driver.version()}: {unfit[card.uuid]}")
    one = part(card)
    mps.prepare(one)
    greedy = {**environment(mps, one), "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": "100"}
    whole = cuda("processors")["processors"]
    few = cuda("processors", env=greedy)["processors"]
    mps.release(one.binding)
    record(whole=whole, few=few)
    assert few <= whole * 0.27
