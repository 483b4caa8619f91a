"""What one program writes and another reads: as 0.1.0 wrote it, with fields to come, and newer.

``tests/data/formats/0.1.0`` holds one object of each format of docs/formats.md as that release
writes it. A release that changes a format adds a folder; these files stay as they are.
"""

import json
import shutil
import zlib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from gpu_fraction.certs import pki
from gpu_fraction.certs.lifetimes import Lifetimes
from gpu_fraction.certs.state import Phase, read_state
from gpu_fraction.domain import (
    assignment,
    changes,
    claim_template,
    inventory,
    keys,
    request_annotation,
)
from gpu_fraction.domain.admission import Rules, admit
from gpu_fraction.domain.assignment import CardShare
from gpu_fraction.domain.backends import BackendConfig, configured
from gpu_fraction.domain.guard import Policy
from gpu_fraction.domain.request import Request, Slice
from gpu_fraction.node_daemon.cards import health
from gpu_fraction.node_daemon.isolation.mps_control import MpsControl
from gpu_fraction.node_daemon.isolation.mps_daemon import RECORD, MpsDaemon, MpsProcess
from gpu_fraction.node_daemon.state.allocation import Allocation
from gpu_fraction.node_daemon.state.store import AllocationStore
from gpu_fraction.quota.state import read
from gpu_fraction.quota.wire import GPUQuota
from gpu_fraction.scheduler.extender import BindRefusedError, Extender
from gpu_fraction.scheduler.objects import Pod as SchedulerPod
from gpu_fraction.scheduler.objects import read_cards
from gpu_fraction.scheduler.state import ClusterState
from tests.builders.clusters import HALF, node_cards, state_of
from tests.builders.pods import container, pod, scheduler_pod, typed

GOLDEN: Final = Path(__file__).parents[1] / "data" / "formats" / "0.1.0"
NOW: Final = datetime(2030, 1, 1, tzinfo=UTC)
MAPS: Final = frozenset(
    {"cards", "columns", "conditions", "containers", "links", "models", "own_env"}
)
"""Fields that map names to values, so that a key more is no field more."""


def golden(name: str) -> str:
    """The object of that format."""
    return (GOLDEN / f"{name}.json").read_text()


def of_next_release(value: Any, field: str = "") -> Any:
    """The same with a field more in every object."""
    if isinstance(value, list):
        return [of_next_release(one) for one in value]
    if not isinstance(value, dict):
        return value
    more = {} if field in MAPS else {"fieldToCome": {"a": [1]}}
    return {key: of_next_release(one, key) for key, one in value.items()} | more


def stored(content: str, folder: Path) -> tuple[Allocation | None, int]:
    """What a daemon reads of a file of its state directory, and how many it sets aside."""
    folder.mkdir(exist_ok=True)
    (folder / "0123456789abcdef0123456789abcdef.json").write_text(content)
    store = AllocationStore(folder)
    aside = store.load()
    store.close()
    return next(iter(store), None), aside


def checked(content: Any) -> str:
    """A stored allocation with the checksum that belongs to it."""
    raw = msgspec.json.encode(content["allocation"])
    return json.dumps({**content, "allocation": 0, "crc32": zlib.crc32(raw)}).replace(
        '"allocation": 0', f'"allocation": {raw.decode()}'
    )


REQUEST = request_annotation.Rendered(
    "native",
    Request(
        slices=(Slice("main", 2, 500, 8192, None), Slice("side", 1, 250, None, 250)),
        models=("A100", "H100"),
        not_models=("T4",),
        uuids=("GPU-0", "GPU-1"),
        placement="topology",
        isolation="required",
    ),
)
ASSIGNED = {
    "main": (CardShare("GPU-0", 500, 8192), CardShare("GPU-1", 500, 8192)),
    "side": (CardShare("GPU-0", 250, 20390),),
}


@pytest.fixture(params=["as-written", "with-fields-to-come"])
def given(request: pytest.FixtureRequest) -> Callable[[str], str]:
    """An object of 0.1.0, or what a release after this one may make of it in the same version."""

    def give(name: str) -> str:
        if request.param == "as-written":
            return golden(name)
        return json.dumps(of_next_release(json.loads(golden(name))))

    return give


def test_a_request_is_read(given: Callable[[str], str]) -> None:
    """By extender, quota and node daemon."""
    assert request_annotation.load(given("request")) == REQUEST


def test_an_assignment_is_read(given: Callable[[str], str]) -> None:
    """By extender, quota and node daemon."""
    assert assignment.parse(given("assigned")) == ASSIGNED


def test_the_extender_counts_what_a_pod_of_0_1_0_holds(given: Callable[[str], str]) -> None:
    """Pod and Node as two components of another release left them."""
    raw = json.loads(golden("pod"))
    raw["metadata"] |= {"uid": "u", "annotations": {keys.REQUEST: given("request")}}
    raw["metadata"]["annotations"][keys.ASSIGNED] = given("assigned")
    raw["spec"]["nodeName"] = "n"
    state = ClusterState()
    state.node_changed("n", *read_cards(given("inventory")))
    state.pod_changed(msgspec.convert(raw, SchedulerPod))
    first, second, third = state.cards("n")
    assert (first.free_core_milli, first.free_memory_mib, first.free_slots) == (250, 52977, 30)
    assert (second.free_core_milli, second.free_slots) == (500, 7)
    assert (third.free_core_milli, third.free_memory_mib) == (142, 9728)


def test_an_inventory_is_read(given: Callable[[str], str]) -> None:
    """On the Node, and from the state directory."""
    found = inventory.parse(given("inventory"))
    assert (found.driver_version, found.simulated) == ("615.10", True)
    assert [card.uuid for card in found.cards] == ["GPU-0", "GPU-1", "MIG-2"]
    first, second, third = found.cards
    assert (first.memory_mib, first.isolation, first.links) == (81559, "mps", {"GPU-1": 1800})
    assert (second.slots, second.healthy, second.health_reason) == (8, False, "XID 79")
    assert (third.core_milli, third.parent, third.parent_memory_mib) == (142, "GPU-2", 81559)


def test_an_allocation_is_read(given: Callable[[str], str], tmp_path: Path) -> None:
    """Its container keeps its slice over an update of the daemon, and over its rollback."""
    found, aside = stored(checked(json.loads(given("allocation"))), tmp_path)
    assert aside == 0
    assert found is not None
    assert found.binding is not None
    assert (found.token, found.sequence) == ("gpu-fraction-slot-0001", 7)
    assert (found.binding.uid, found.binding.container) == ("uid-0", "main")
    assert found.binding.shares == (CardShare("GPU-0", 250, 10000),)
    assert (found.binding.isolation, found.binding.root_risk) == ("required", "")
    assert found.binding.own_env == {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.5"}


def test_an_allocation_is_read_as_it_lies_on_disk(tmp_path: Path) -> None:
    """Byte for byte, with the checksum of its time."""
    shutil.copy(GOLDEN / "allocation.json", tmp_path / "0123456789abcdef0123456789abcdef.json")
    store = AllocationStore(tmp_path)
    assert store.load() == 0
    store.close()
    assert len(store) == 1


def test_the_health_of_cards_is_read(given: Callable[[str], str]) -> None:
    """A sick card stays sick over an update of the daemon."""
    found = health.load(given("health").encode(), "boot-1")
    assert [target.uuid for target in found.targets] == ["GPU-0", "MIG-1"]
    assert not found.cards["GPU-0"].healthy
    assert found.cards["GPU-0"].reason == "XID 79"


def test_the_record_of_the_control_daemon_is_read(
    given: Callable[[str], str], tmp_path: Path
) -> None:
    """The next release's daemon recognises the process that serves running containers."""
    (tmp_path / RECORD).write_text(given("control-daemon"))
    found = MpsDaemon(MpsControl(tmp_path, 3), tmp_path).recorded()
    assert found == MpsProcess(42, 1234, ("GPU-0",))


def test_a_quota_is_read(given: Callable[[str], str]) -> None:
    """Budget, what is used and what is reserved."""
    found = read(msgspec.json.decode(given("gpuquota"), type=GPUQuota))
    assert found.problems == ()
    assert found.ledger is not None
    assert (found.ledger.used["cores"], found.ledger.used["H100.gpus"]) == (500, 1)
    reservation = found.reserved["uid-2"]
    assert (reservation.name, reservation.amounts["cores"]) == ("web-2", 250)
    assert found.ledger.taken["memory"] == 60 * 1024


@pytest.mark.parametrize("phase", ["Settle", "PhaseToCome"])
def test_a_certificate_rotation_goes_on(phase: str) -> None:
    """From the Secret's annotations and data; a phase to come is taken from what is stored."""
    kept = json.loads(golden("certificates"))
    current, to_be, old = (pki.new_authority("webhook", NOW, Lifetimes()) for _ in range(3))
    pem = (current.certificate.pem, current.key_pem)
    pem += (to_be.certificate.pem, to_be.key_pem, old.certificate.pem)
    data = {key: text.encode() for key, text in zip(kept["data"], pem, strict=True)}
    annotations = {**kept["annotations"], keys.PREFIX + "to-come": "1"}
    annotations[keys.PREFIX + "certificate-phase"] = phase
    found = read_state({**data, "to-come.crt": b"x"}, annotations, NOW)
    assert (found.current, found.next, found.previous) == (current, to_be, (old.certificate,))
    assert (found.rotate_ca, found.rotate_leaf, found.reason) == ("1", "2", "requested")
    known = phase == "Settle"
    assert found.phase == (Phase.SETTLE if known else Phase.TRUST)
    assert (found.problems == ()) is known


@pytest.mark.parametrize("name", ["pod", "claim-template"])
def test_a_rewritten_pod_is_validated_as_it_is(name: str) -> None:
    """One replica may mutate a pod and another, of the next release, validate it."""
    raw = json.loads(golden(name))
    rewritten = typed(raw.get("pod", raw))
    stack = configured(BackendConfig())["native" if name == "pod" else "dra"]
    assert admit(rewritten, stack, Rules()).operations == []


def test_the_template_of_a_claim_is_recognised() -> None:
    """The controller keeps it, so claims that were made of it go on."""
    kept = json.loads(golden("claim-template"))
    assert claim_template.proves(kept["name"], kept["spec"])


NEWER: Mapping[str, Callable[[str], object]] = {
    "request": request_annotation.load,
    "assigned": assignment.parse,
    "inventory": inventory.parse,
}


@pytest.mark.parametrize("name", NEWER)
@pytest.mark.parametrize("reshaped", [False, True])
def test_a_newer_version_is_named_and_not_read(name: str, *, reshaped: bool) -> None:
    """Whatever else has changed in it."""
    content = {"v": 2} if reshaped else {**json.loads(golden(name)), "v": 2}
    told = "^version 2, from a newer release; this program reads version 1$"
    with pytest.raises(ValueError, match=told):
        NEWER[name](json.dumps(content))


@pytest.mark.parametrize("version", ["-1", "true", "null", '"2"', "1.5", "1e999", "9" * 5000])
@pytest.mark.parametrize("name", NEWER)
def test_a_version_that_no_release_writes_is_damage(name: str, version: str) -> None:
    """The message stays short, whatever somebody wrote."""
    content = golden(name).replace('"v":1', f'"v":{version}')
    with pytest.raises(ValueError, match=r"^not an? ") as refused:
        NEWER[name](content)
    assert len(str(refused.value)) < 200


def test_a_newer_allocation_is_set_aside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """After a rollback: the log says which file, and what this program reads."""
    content = {**json.loads(golden("allocation")), "v": 2}
    assert stored(json.dumps(content), tmp_path) == (None, 1)
    assert (
        "version 2, from a newer release; this program reads version 1" in capsys.readouterr().out
    )


def test_newer_health_is_as_none() -> None:
    """The next polls find the faults that last."""
    content = {**json.loads(golden("health")), "v": 2}
    assert health.load(json.dumps(content).encode(), "boot-1") == health.Health()


def test_a_node_of_another_release_gives_nothing() -> None:
    """It says which version it has; the others serve pods meanwhile."""
    cards, problem = read_cards(json.dumps({"v": 2, "cards": {}}))
    assert cards == ()
    assert problem == (
        "gpu-fraction.dev/inventory is unreadable: version 2, from a newer release; "
        "this program reads version 1"
    )


def test_a_pod_on_cards_of_a_newer_version_keeps_its_node_closed() -> None:
    """After a rollback of the extender: a guess could give its cards to another pod."""
    state = state_of({name: node_cards(name, 1) for name in "ab"})
    guest = scheduler_pod("p", HALF, node="a", assigned='{"v":2}', phase="Running")
    state.pod_changed(guest)
    result = Extender(state).filter(state.info(scheduler_pod("x", HALF)), ["a", "b"])
    assert result.node_names == ["b"]
    assert result.failed_and_unresolvable_nodes == {
        "a": (
            "pod team/p runs on cards that cannot be read, so none are given until it is gone: "
            "gpu-fraction.dev/assigned: version 2, from a newer release; "
            "this program reads version 1"
        )
    }
    with pytest.raises(BindRefusedError, match="node a: pod team/p runs on cards"):
        Extender(state).cards_for(state.info(scheduler_pod("x", HALF)), "a")
    state.pod_removed("uid-p")
    assert len(Extender(state).filter(state.info(scheduler_pod("x", HALF)), ["a"]).node_names) == 1


def test_a_debugger_of_a_pod_from_a_newer_release_may_not_be_root() -> None:
    """Its request may require isolation that does not hold against root."""
    raw = pod({"gpu-fraction": "0.25", keys.REQUEST: '{"v":2}'}, container("main"))
    debugged = pod(
        {"gpu-fraction": "0.25", keys.REQUEST: '{"v":2}'},
        container("main"),
        ephemeral=[container("debug")],
    )
    (problem,) = changes.update(typed(raw), typed(debugged), Policy(), trusted=False)
    assert problem.path.startswith("spec.ephemeralContainers[0]")
