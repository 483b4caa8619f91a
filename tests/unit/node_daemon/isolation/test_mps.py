"""The MPS engines against a control daemon of our own: a real process, real commands."""

import os
import pathlib
import re
import signal
from collections.abc import Callable

import pytest

from gpu_fraction.domain.assignment import CardShare
from node_daemon.cards.nvml_driver import Driver
from node_daemon.isolation.engine import CardFacts, Part, Resource, Strength
from node_daemon.isolation.host_process import GROUP, HostProcess
from node_daemon.isolation.mps import IN_CONTAINER, MpsEngine
from node_daemon.isolation.mps_control import MpsControl, MpsVersion, size_mib
from node_daemon.isolation.mps_daemon import PID_FILE, MpsDaemon
from node_daemon.isolation.mps_namespaces import MpsNamespaceEngine
from node_daemon.isolation.node import NodeIsolation
from node_daemon.state.errors import EngineFailedError, NotEnforceableError
from tests import fake_gpus
from tests.fake_gpus import bound
from tests.unit.node_daemon.isolation.conftest import Mps, running

ONE, TWO = fake_gpus.uuid(0), fake_gpus.uuid(1)
CARDS = (CardFacts(ONE, 0, 80959, (9, 0)), CardFacts(TWO, 1, 80959, (9, 0)))
BOTH = frozenset(Resource)
PID_MAX = 1 << 22
"""No process has a greater id. Source: proc(5), pid_max."""
COMPUTE = frozenset({Resource.COMPUTE})


def part(
    container: str = "a",
    *shares: tuple[str, int, int],
    resources: frozenset[Resource] = BOTH,
) -> Part:
    """A container's card, thousandths and MiB."""
    held = tuple(CardShare(*share) for share in shares or ((ONE, 250, 8000),))
    return Part(bound("3f2e1d0c-aaaa-bbbb-cccc-0123456789ab", container, held), held, resources)


def limits(mps: Mps) -> dict[str, tuple[int | None, float | None]]:
    """What the control daemon enforces, but for its own namespace."""
    found = mps.control().namespaces("gpu_fraction").values()
    return {n.name: (n.memory_mib, n.percent) for n in found if n.name != "default"}


def name(one: Part) -> str:
    """The container's namespace."""
    return f"gf_{one.binding.tag}"


def test_version_2_limits_by_the_containers_environment(mps: Mps, driver: Driver) -> None:
    """By card, never by position; nothing where compute is not limited."""
    engine = mps.engine(driver, 2)
    assert engine.probe(CARDS) == {}
    one = part("a", (ONE, 250, 8000), (TWO, 505, 9000))
    engine.prepare(one)
    assert engine.edits(one).env == {
        "CUDA_MPS_PIPE_DIRECTORY": IN_CONTAINER,
        "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": "25",
        "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT": f"{ONE}=8000M,{TWO}=9000M",
    }
    [mount] = engine.edits(one).mounts
    assert (mount["hostPath"], mount["containerPath"]) == (str(mps.pipe), IN_CONTAINER)
    whole = engine.edits(part("a", (ONE, 0, 8000))).env
    assert "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE" not in whole
    tiny = engine.edits(part("a", (ONE, 4, 8000))).env
    assert tiny["CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"] == "1"


def test_strength_differs_between_the_versions(mps: Mps, driver: Driver) -> None:
    """Version 3 holds compute against the container, but not against its root."""
    two, three = mps.engine(driver, 2), mps.engine(driver, 3)
    assert {two.enforces(r) for r in Resource} == {Strength.COOPERATIVE}
    assert three.enforces(Resource.COMPUTE) is Strength.ENFORCED
    assert three.enforces(Resource.MEMORY) is Strength.COOPERATIVE
    root, user = bound("u", "c", ()), bound("u", "c", (), root_risk="")
    assert "cannot run as root: spec." in three.loophole(Resource.COMPUTE, root)
    assert three.loophole(Resource.COMPUTE, user) == ""


@pytest.mark.parametrize(
    "risk", ["", "spec.containers[1].securityContext.allowPrivilegeEscalation: allowed: false"]
)
def test_a_pod_that_requires_isolation_must_not_be_able_to_become_root(
    mps: Mps, driver: Driver, risk: str
) -> None:
    """The refusal says which field; a pod that only prefers isolation starts all the same."""
    node = NodeIsolation([mps.engine(driver)])
    node.assess(CARDS)
    node.restore([])
    compute_only = (CardShare(ONE, 250, CARDS[0].memory_mib),)
    node.prepare(bound("u", "c", compute_only, "preferred", risk))
    required = bound("u", "c", compute_only, "required", risk)
    if not risk:
        node.prepare(required)
        return
    with pytest.raises(NotEnforceableError, match=re.escape(risk)):
        node.prepare(required)


def test_version_3_makes_a_namespace_with_the_limits(mps: Mps, driver: Driver) -> None:
    """Only its own directory is mounted; making it twice changes nothing."""
    engine = mps.engine(driver)
    assert engine.probe(CARDS) == {}
    one = part()
    engine.prepare(one)
    engine.prepare(one)
    assert limits(mps) == {name(one): (8000, 25.0)}
    [mount] = engine.edits(one).mounts
    assert mount["hostPath"] == str(mps.pipe / "gpu_fraction" / name(one))
    assert mount["containerPath"] == engine.edits(one).env["CUDA_MPS_PIPE_DIRECTORY"]


def test_compute_alone_leaves_memory_to_another_engine(mps: Mps, driver: Driver) -> None:
    """Beside ``cgroup`` MPS sets no memory limit, outside or inside the container."""
    engine = mps.engine(driver)
    engine.probe(CARDS)
    one = part(resources=COMPUTE)
    engine.prepare(one)
    assert limits(mps) == {name(one): (None, 25.0)}
    assert "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT" not in engine.edits(one).env


def test_nobodys_namespace_is_nearly_nothing(mps: Mps, driver: Driver) -> None:
    """Who finds a way to the server itself gains nothing by it."""
    mps.engine(driver).probe(CARDS)
    default = mps.control().namespaces("gpu_fraction")["default"]
    assert (default.memory_mib, default.percent) == (512, 10.0)


def test_releasing_deletes_the_namespace_once_no_client_is_left(mps: Mps, driver: Driver) -> None:
    """The daemon refuses while one is connected; the caller tries again."""
    engine, one = mps.engine(driver), part()
    engine.probe(CARDS)
    engine.prepare(one)
    mps.control().run_v3("client", "connect", name(one))
    with pytest.raises(EngineFailedError, match="active clients"):
        engine.release(one.binding)
    mps.control().run_v3("client", "disconnect", name(one))
    engine.release(one.binding)
    engine.release(one.binding)
    assert limits(mps) == {}


def test_a_connected_client_does_not_hinder_a_second_start(mps: Mps, driver: Driver) -> None:
    """Limits cannot be changed under a client, and need not be."""
    engine, one = mps.engine(driver), part()
    engine.probe(CARDS)
    engine.prepare(one)
    mps.control().run_v3("client", "connect", name(one))
    engine.prepare(one)
    mps.engine(driver).restore([one], {one.binding.tag})
    assert limits(mps) == {name(one): (8000, 25.0)}


def test_the_control_daemon_outlives_the_node_daemon(mps: Mps, driver: Driver) -> None:
    """A fresh engine finds the same process, and the namespaces are still there."""
    engine, one = mps.engine(driver), part()
    engine.probe(CARDS)
    engine.prepare(one)
    pid = mps.pid
    again = mps.engine(driver)
    assert again.probe(CARDS) == {}
    assert mps.pid == pid
    assert limits(mps) == {name(one): (8000, 25.0)}
    assert os.getsid(pid) != os.getsid(0)


def test_a_new_control_daemon_gets_the_namespaces_again(mps: Mps, driver: Driver) -> None:
    """After a crash: what is needed is made, what nobody needs is deleted."""
    engine, one, two = mps.engine(driver), part("a"), part("b", (TWO, 100, 500))
    engine.probe(CARDS)
    engine.prepare(one)
    mps.kill()
    engine.restore([one, two], {one.binding.tag, two.binding.tag})
    assert limits(mps) == {name(one): (8000, 25.0), name(two): (500, 10.0)}
    engine.restore([two], {two.binding.tag})
    assert limits(mps) == {name(two): (500, 10.0)}


def test_what_cannot_be_made_again_is_told_and_the_rest_is_made(mps: Mps, driver: Driver) -> None:
    """One namespace that fails does not stop the others, nor one that cannot be deleted."""
    engine, one, two, gone = mps.engine(driver), part("a"), part("b"), part("c")
    engine.probe(CARDS)
    engine.prepare(gone)
    mps.control().run_v3("client", "connect", name(gone))
    mps.fail(f"namespace create {name(one)}")
    with pytest.raises(EngineFailedError, match=r"told to fail; .*active clients"):
        engine.restore([one, two], {one.binding.tag, two.binding.tag})
    assert set(limits(mps)) == {name(two), name(gone)}


def test_version_2_looks_for_its_daemon_after_a_restart(mps: Mps, driver: Driver) -> None:
    """Started again where it is gone and somebody needs it; shared memory where configured."""
    shm = mps.directory / "shm"
    engine = MpsEngine(mps.modes(driver), mps.control(2), mps.daemon(2), shm)
    engine.probe(CARDS)
    mps.kill()
    engine.restore([], set())
    assert not running(mps.pid)
    engine.restore([part()], {part().binding.tag})
    assert running(mps.pid)
    engine.release(part().binding)
    assert engine.loophole(Resource.MEMORY, part().binding) == ""
    places = {m["containerPath"]: m["hostPath"] for m in engine.edits(part()).mounts}
    assert places["/dev/shm"] == str(shm)


def test_a_daemon_that_does_not_answer_keeps_containers_from_starting(
    mps: Mps, driver: Driver
) -> None:
    """It is not killed: that would end its clients."""
    mps.engine(driver).probe(CARDS)
    pid = mps.pid
    mps.fail("hang")
    hasty = mps.control(timeout_s=0.3)
    engine = MpsNamespaceEngine(
        mps.modes(driver), hasty, MpsDaemon(hasty, mps.directory / "state")
    )
    assert set(engine.probe(CARDS)) == {ONE, TWO}
    with pytest.raises(EngineFailedError, match="does not answer"):
        engine.prepare(part())
    assert running(pid)


def test_a_stale_pid_file_is_no_daemon(mps: Mps, driver: Driver) -> None:
    """Its number may belong to any program by now."""
    mps.pipe.mkdir()
    (mps.pipe / PID_FILE).write_text(f"{os.getpid()}\n")
    (mps.pipe / "control").write_text("not a socket")
    assert mps.engine(driver).probe(CARDS) == {}
    assert mps.pid != os.getpid()


def pipe_without_writer(path: pathlib.Path, _pid: int) -> None:
    """Whoever opens it to read waits."""
    os.mkfifo(path)


def link(path: pathlib.Path, pid: int) -> None:
    """It leads out of the directory, here to what would do."""
    elsewhere = path.parent.parent / "elsewhere"
    elsewhere.write_text(f"{pid}\n")
    path.symlink_to(elsewhere)


def long_file(path: pathlib.Path, pid: int) -> None:
    """It begins as a pid file does, but has no end to speak of."""
    path.write_text(f"{' ' * 100}{pid}\n")


FORGERIES = pytest.mark.parametrize("forge", [pipe_without_writer, link, long_file])


@pytest.mark.timeout(20)
@FORGERIES
def test_a_forged_pid_file_does_not_hide_the_daemon(
    mps: Mps, driver: Driver, forge: Callable[[pathlib.Path, int], None]
) -> None:
    """Version 2 containers may write beside it; which process it is, is remembered elsewhere."""
    engine = mps.engine(driver, 2)
    engine.probe(CARDS)
    pid = mps.pid
    (mps.pipe / PID_FILE).unlink()
    forge(mps.pipe / PID_FILE, os.getpid())
    try:
        assert mps.engine(driver, 2).probe(CARDS) == {}
        engine.prepare(part())
        recorded = mps.daemon(2).recorded()
        assert recorded is not None
        assert recorded.pid == pid
        assert running(pid)
    finally:
        os.kill(pid, signal.SIGKILL)
        (mps.pipe / PID_FILE).unlink()


@pytest.mark.timeout(20)
@FORGERIES
def test_only_a_short_plain_file_is_a_pid_file(
    mps: Mps, driver: Driver, forge: Callable[[pathlib.Path, int], None]
) -> None:
    """Anything else is taken away where a daemon is started, and not opened before."""
    MpsDaemon(mps.control(2), mps.directory / "other-state").ensure([ONE, TWO])
    first = mps.pid
    (mps.pipe / PID_FILE).unlink()
    forge(mps.pipe / PID_FILE, first)
    try:
        assert mps.engine(driver, 2).probe(CARDS) == {}
        assert mps.pid not in {0, first}
        assert not (mps.pipe / PID_FILE).is_symlink()
    finally:
        os.kill(first, signal.SIGKILL)
        if (mps.pipe / PID_FILE).is_fifo():
            (mps.pipe / PID_FILE).unlink()


@pytest.mark.parametrize(
    ("group", "started"),
    [("gpu-fraction-mps", False), ("kubepods/pod3f2e1d0c-aaaa-bbbb-cccc-0123456789ab/c", True)],
)
def test_a_pods_process_is_not_the_hosts_daemon(
    mps: Mps, machine: Callable[..., HostProcess], group: str, *, started: bool
) -> None:
    """It may have the program's name, end the daemon and write its own id in the pid file.

    The host's, where it does not answer, is waited for: its clients run.
    """
    proc, other = mps.directory / "proc", PID_MAX + 1
    seen = proc / str(other)
    seen.mkdir(parents=True)
    (seen / "cmdline").write_text(f"{mps.binary}\0-d\0")
    (seen / "stat").write_text(f"{other} (mps) S " + "1 " * 40)
    (seen / "cgroup").write_text(f"0::/{group}\n")
    mps.pipe.mkdir()
    (mps.pipe / PID_FILE).write_text(f"{other}\n")
    host = machine()
    daemon = MpsDaemon(mps.control(2), mps.directory / "state", host=host, proc=proc)
    try:
        if started:
            assert daemon.ensure([ONE])
            assert running(mps.pid)
        else:
            with pytest.raises(EngineFailedError, match=f"pid {other}.* does not answer"):
                daemon.ensure([ONE])
    finally:
        if mps.pid == other:
            (mps.pipe / PID_FILE).unlink()


def test_what_cannot_be_taken_away_is_told(mps: Mps, driver: Driver) -> None:
    """A directory in the socket's place keeps containers of these cards from starting."""
    (mps.pipe / "control").mkdir(parents=True)
    assert "control" in mps.engine(driver, 2).probe(CARDS)[ONE]


def test_a_daemon_of_somebody_else_is_used_and_none_is_started(mps: Mps, driver: Driver) -> None:
    """Where a container of its own runs it, this daemon only looks for it."""
    waiting = MpsDaemon(mps.control(), mps.directory / "state", may_start=False)
    engine = MpsNamespaceEngine(mps.modes(driver), mps.control(), waiting)
    assert set(engine.probe(CARDS)) == {ONE, TWO}
    assert mps.pid == 0
    MpsDaemon(mps.control(), mps.directory / "elsewhere").ensure([ONE, TWO])
    assert engine.probe(CARDS) == {}


def test_the_daemon_is_started_outside_the_container(
    mps: Mps, machine: Callable[..., HostProcess]
) -> None:
    """In a control group of the host; the end of the container's would be its end."""
    outside = machine()
    daemon = mps.daemon(host=outside)
    assert daemon.ensure([ONE]) is True
    assert (outside.cgroups / GROUP / "cgroup.procs").read_text().strip().isdigit()
    assert daemon.ensure([ONE]) is False
    assert daemon.cards() == (ONE,)


def test_what_the_program_says_of_a_failed_start_is_told(
    mps: Mps, machine: Callable[..., HostProcess], driver: Driver
) -> None:
    """Here the way out is barred; nothing runs then, and no container starts on the cards."""
    outside = machine()
    (outside.cgroups / GROUP / "cgroup.procs").mkdir(parents=True)
    daemon = mps.daemon(host=outside)
    engine = MpsNamespaceEngine(mps.modes(driver), mps.control(), daemon)
    assert "Is a directory" in engine.probe(CARDS)[ONE]
    assert mps.pid == 0


def test_a_program_that_is_missing_or_fails_is_told(mps: Mps) -> None:
    """With the program's name, or what it said."""
    missing = MpsControl(mps.pipe, 3, str(mps.directory / "nothing"))
    with pytest.raises(EngineFailedError, match="nothing"):
        MpsDaemon(missing, mps.directory / "state").ensure([ONE])
    with pytest.raises(EngineFailedError, match="Cannot find MPS control daemon"):
        mps.control().run_v3("server", "list")


def test_a_server_that_vanishes_keeps_containers_from_starting(mps: Mps, driver: Driver) -> None:
    """One that names a missing card is accepted and ends: clients would run without limits."""
    mps.daemon().ensure([ONE])  # started without the second card
    reasons = mps.engine(driver).probe(CARDS)
    assert set(reasons) == {ONE, TWO}
    assert "is not among" in reasons[ONE]


def test_old_cards_and_mig_instances_are_unfit(mps: Mps, driver: Driver) -> None:
    """And where no card is fit nothing is started."""
    old = CardFacts("GPU-old", 0, 1, (6, 1))
    instance = CardFacts("MIG-1", 0, 1, (9, 0), mig_instance=True)
    assert set(mps.engine(driver).probe([old, instance])) == {"GPU-old", "MIG-1"}
    assert mps.pid == 0


@pytest.mark.parametrize("protocol", [2, 3])
def test_nothing_is_started_before_the_cards_are_known(
    mps: Mps, driver: Driver, protocol: MpsVersion
) -> None:
    """A control daemon without cards would serve none for as long as it lives."""
    engine = mps.engine(driver, protocol)
    engine.restore([part()], {part().binding.tag})
    with pytest.raises(EngineFailedError, match="no card"):
        engine.prepare(part())
    assert mps.pid == 0


def test_a_limit_that_was_not_taken_is_an_error(mps: Mps, driver: Driver) -> None:
    """What the daemon refuses reaches the caller with its words."""
    engine = mps.engine(driver)
    engine.probe(CARDS)
    mps.fail("namespace set")
    with pytest.raises(EngineFailedError, match="told to fail"):
        engine.prepare(part())


def test_a_pipe_directory_that_is_too_long_is_refused(mps: Mps, driver: Driver) -> None:
    """The control daemon would fail without a word, so it is not even started."""
    control = MpsControl(mps.pipe / ("x" * 80), 3, str(mps.binary))
    engine = MpsNamespaceEngine(
        mps.modes(driver), control, MpsDaemon(control, mps.directory / "state")
    )
    assert "too long" in engine.probe(CARDS)[ONE]
    assert not control.pipe.exists()


@pytest.mark.parametrize(
    ("text", "mib"), [("8G", 8192), ("512M", 512), ("2048K", 2), ("-", None), ("1.5G", None)]
)
def test_sizes_are_read_as_the_daemon_writes_them(text: str, mib: int | None) -> None:
    """Binary units; anything else is unknown."""
    assert size_mib(text) == mib


def test_what_a_container_says_on_the_socket_is_a_reason_and_no_crash(mps: Mps) -> None:
    """Version 2's socket is in a folder that containers write: any bytes, any number of them."""
    mps.binary.write_text("#!/bin/sh\nhead -c 100000 /dev/zero | tr '\\0' '\\377'\nexit 1\n")
    with pytest.raises(EngineFailedError) as failed:
        mps.control(2).run_v2("get_default_active_thread_percentage")
    assert "get_default_active_thread_percentage" in str(failed.value)
    assert len(str(failed.value)) < 500
