"""The MPS engines against a control daemon of our own: a real process, real commands."""

import re

import pytest

from gpu_fraction.domain.assignment import CardShare
from gpu_fraction.node_daemon.cards.nvml_driver import Driver
from gpu_fraction.node_daemon.isolation.engine import CardFacts, Resource, Strength
from gpu_fraction.node_daemon.isolation.mps import IN_CONTAINER
from gpu_fraction.node_daemon.isolation.mps_control import size_mib
from gpu_fraction.node_daemon.isolation.node import NodeIsolation
from gpu_fraction.node_daemon.state.errors import EngineFailedError, NotEnforceableError
from tests.support.fake_gpus import bound
from tests.unit.node_daemon.isolation.conftest import Mps
from tests.unit.node_daemon.isolation.mps_parts import CARDS, ONE, TWO, limits, name, part

COMPUTE = frozenset({Resource.COMPUTE})


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


@pytest.mark.parametrize("protocol", [2, 3])
def test_a_client_still_sees_the_whole_card(mps: Mps, driver: Driver, protocol: int) -> None:
    """A limit makes less of it free; frameworks count their part from the total."""
    assert not mps.engine(driver, protocol).edits(part()).shrinks_total  # type: ignore[arg-type]


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


def test_old_cards_and_mig_instances_are_unfit(mps: Mps, driver: Driver) -> None:
    """And where no card is fit nothing is started."""
    old = CardFacts("GPU-old", 0, 1, (6, 1))
    instance = CardFacts("MIG-1", 0, 1, (9, 0), mig_instance=True)
    assert set(mps.engine(driver).probe([old, instance])) == {"GPU-old", "MIG-1"}
    assert mps.pid == 0


def test_a_limit_that_was_not_taken_is_an_error(mps: Mps, driver: Driver) -> None:
    """What the daemon refuses reaches the caller with its words."""
    engine = mps.engine(driver)
    engine.probe(CARDS)
    mps.fail("namespace set")
    with pytest.raises(EngineFailedError, match="told to fail"):
        engine.prepare(part())


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
