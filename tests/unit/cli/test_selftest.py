"""``gpu-fraction selftest`` against an API server, with answers in the place of containers."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gpu_fraction.domain import assignment, inventory, keys
from gpu_fraction.domain.assignment import CardShare
from gpu_fraction.kube.access import Access
from gpu_fraction.kube.client import Client, connect
from gpu_fraction.kube.resources import JOBS, PODS
from gpu_fraction.sandbox.apiserver import ApiServer, Fault, Text
from gpu_fraction.selftest import outside
from gpu_fraction.selftest.inside import Measured
from gpu_fraction.selftest.outside import SelftestError
from gpu_fraction.selftest.protocol import STEPS, judged
from tests.builders.cards import card
from tests.builders.views import gpu_node, gpu_pod
from tests.support.access import fixed, kubeconfig, serving
from tests.unit.cli.conftest import Command

CARD = card(0, uuid="GPU-a", isolation="mps", enforces_memory=True, enforces_compute=True)
ANSWER = Measured(got_mib=4096, tried_mib=6144, launches=dict.fromkeys(range(10), 250))


@pytest.fixture
def api() -> ApiServer:
    """One node with one free card, and a pod of the node daemon."""
    server = ApiServer()
    server.add(gpu_node("n1", CARD))
    log = "starting\n" + msgspec.json.encode(ANSWER).decode() + "\n"
    server.faults.add(Fault(Text(200, log), "get", "pods", subresource="log", times=None))
    return server


@asynccontextmanager
async def controllers(client: Client, *, phase: str) -> AsyncIterator[None]:
    """The Job controller, scheduler and kubelet: each Job gets a pod, which follows its Job."""
    seen: dict[str, dict[str, Any]] = {}

    async def work() -> None:
        while True:
            jobs = await client.list(JOBS.at(namespace="default"), dict[str, Any])
            names = {one["metadata"]["name"] for one in jobs.items}
            for one in jobs.items:
                if one["metadata"]["name"] not in seen:
                    seen[one["metadata"]["name"]] = one
                    await client.create(PODS.at(namespace="default"), pod_of(one), dict[str, Any])
                    status = PODS.at(pod_name(one), namespace="default", subresource="status")
                    made = await client.get(
                        PODS.at(pod_name(one), namespace="default"), dict[str, Any]
                    )
                    made["status"] = {"phase": phase}
                    await client.replace(status, made, dict[str, Any])
            for name in [name for name in seen if name not in names]:
                address = PODS.at(pod_name(seen.pop(name)), namespace="default")
                await client.delete(address, {"gracePeriodSeconds": 0})
            await asyncio.sleep(0.01)

    task = asyncio.create_task(work())
    try:
        yield
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


def pod_name(one: dict[str, Any]) -> str:
    """Of a Job's pod."""
    return f"{one['metadata']['name']}-x"


def pod_of(one: dict[str, Any]) -> dict[str, Any]:
    """The pod of a Job, with the card that it asked for."""
    template = one["spec"]["template"]
    annotations = template["metadata"]["annotations"]
    milli = round(float(annotations[keys.FRACTION]) * 1000)
    share = CardShare(annotations[keys.UUID], milli, 16384 * milli // 1000)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": pod_name(one),
            "namespace": "default",
            "labels": {"job-name": one["metadata"]["name"]},
            "annotations": {
                **annotations,
                keys.ASSIGNED: assignment.render({"selftest": (share,)}),
            },
        },
        "spec": {"containers": template["spec"]["containers"], "nodeName": "n1"},
    }


@asynccontextmanager
async def connected(api: ApiServer) -> AsyncIterator[Client]:
    """A client of that server."""
    async with api.serve(), connect(fixed(Access(api.url)), component="test") as client:
        yield client


async def test_every_step_is_run_judged_and_removed(
    api: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four containers, each with its promise and its answer; no Job is left."""
    monkeypatch.setattr(outside, "POLL_S", 0.01)
    async with connected(api) as client, controllers(client, phase="Succeeded"):
        place = await outside.find(client, node="", image="i", namespace="default")
        slices = await outside.run(client, place)
        left = await client.list(JOBS.at(namespace="default"), dict[str, Any])
    assert not left.items
    assert [(s.step, s.share_milli, s.promise_mib) for s in slices] == [
        ("whole", 1000, 16384),
        ("alone", 250, 4096),
        ("together", 250, 4096),
        ("together", 500, 8192),
    ]
    assert all(s.measured == ANSWER for s in slices)
    found = {(v.step, v.what.split()[0]): v.outcome for v in judged(slices, CARD)}
    assert found["alone", "memory"] == "held"


async def test_a_card_that_is_simulated_shows_the_steps(
    api: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Containers may never run there: a card that was chosen is enough."""
    monkeypatch.setattr(outside, "POLL_S", 0.01)
    node = gpu_node("n1", CARD)
    node["metadata"]["labels"] = {"gpu-fraction.dev/simulated": "true"}
    api.add(node)
    async with connected(api) as client, controllers(client, phase="Pending"):
        place = await outside.find(client, node="n1", image="i", namespace="default")
        slices = await outside.run(client, place)
    assert place.simulated
    assert len(slices) == sum(len(step.shares) for step in STEPS)
    for verdict in judged(slices, CARD):
        assert "simulated" in verdict.measured
        assert "MiB" in verdict.promise


async def test_a_pod_that_never_runs_is_an_answer(api: ApiServer) -> None:
    """In the words of the scheduler, and the Job is removed."""
    async with connected(api) as client:
        place = await outside.find(client, node="n1", image="i", namespace="default")
        slices = await outside.run(client, place, steps=STEPS[:1], wait_s=0.1)
        left = await client.list(JOBS.at(namespace="default"), dict[str, Any])
    assert "made no pod" in slices[0].problem
    assert not left.items


async def test_jobs_are_removed_when_the_command_is_interrupted(api: ApiServer) -> None:
    """Ctrl-C cancels the work."""
    async with connected(api) as client:
        place = await outside.find(client, node="n1", image="i", namespace="default")
        running = asyncio.create_task(outside.run(client, place, steps=STEPS[:1]))
        while not (await client.list(JOBS.at(namespace="default"), dict[str, Any])).items:
            await asyncio.sleep(0.01)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        left = await client.list(JOBS.at(namespace="default"), dict[str, Any])
    assert not left.items


@pytest.mark.parametrize(
    ("objects", "node", "said"),
    [
        ([], "n2", "node n2 does not exist"),
        (
            [{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n2"}}],
            "n2",
            "n2 has no GPU",
        ),
        (
            [gpu_pod("p", CardShare("GPU-a", 100, 100), node="n1")],
            "",
            "no healthy card of any node",
        ),
        ([gpu_node("n1", card(0, uuid="GPU-a", healthy=False))], "n1", "no healthy card of n1"),
    ],
)
async def test_what_stops_the_test_is_said(
    api: ApiServer, objects: list[dict[str, Any]], node: str, said: str
) -> None:
    """Before anything is made."""
    api.add_namespace("team-a")
    api.add(*objects)
    async with connected(api) as client:
        with pytest.raises(SelftestError, match=said):
            await outside.find(client, node=node, image="i", namespace="default")


@pytest.fixture
def selftest(api: ApiServer, command: Command, tmp_path: Path) -> Iterator[Any]:
    """Run the command against that server."""
    with serving(api) as url:
        file = kubeconfig(tmp_path, url)
        yield lambda *words: command("selftest", "--kubeconfig", file, *words)


@pytest.fixture
def working(api: ApiServer, selftest: Any) -> Iterator[Any]:
    """The same, with controllers at work."""
    stop = threading.Event()

    async def work() -> None:
        source = fixed(Access(api.url))
        async with (
            connect(source, component="test") as client,
            controllers(client, phase="Succeeded"),
        ):
            while not stop.is_set():
                await asyncio.sleep(0.01)

    thread = threading.Thread(target=lambda: asyncio.run(work()))
    thread.start()
    yield selftest
    stop.set()
    thread.join()


def test_the_answer_is_a_table_and_a_report(
    working: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 1: the half never got what it was promised."""
    monkeypatch.setattr(outside, "POLL_S", 0.01)
    file = tmp_path / "result.md"
    result = working("--image=i", "--report", file, "-n", "default")
    assert result.code == 1
    assert "card GPU-a (Tesla T4, 16384 MiB) of node n1, engine mps" in result.out
    assert "STEP      WHAT" in result.out
    assert "not reached" in result.out
    assert file.read_text().startswith("## Tesla T4, driver 580.65.06")
    assert "whole: a whole card" in result.err


def test_simulated_cards_are_no_result(
    api: ApiServer, working: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The steps are shown, and no report is written."""
    monkeypatch.setattr(outside, "POLL_S", 0.01)
    node = gpu_node("n1", CARD)
    node["metadata"]["labels"] = {keys.LABEL_SIMULATED: "true"}
    api.add(node)
    api.faults.clear()
    file = tmp_path / "result.md"
    result = working("--image=i", "--report", file, "-n", "default")
    assert result.code == 0
    assert "simulated card GPU-a" in result.out
    assert result.out.endswith("simulated: the steps ran, nothing was measured\n")
    assert not file.exists()


def test_without_an_image_the_daemons_is_taken(selftest: Any) -> None:
    """Where there is none, the flag is named; exit code 2."""
    result = selftest()
    assert result.code == 2
    assert "give --image" in result.err


def daemon(namespace: str) -> dict[str, Any]:
    """A pod with the labels of the node daemon."""
    made = gpu_pod("daemon", namespace=namespace, node="n1")
    made["metadata"]["labels"] = {
        "app.kubernetes.io/name": "gpu-fraction",
        "app.kubernetes.io/component": "node-daemon",
    }
    made["spec"]["containers"][0]["image"] = f"registry.test/{namespace}"
    return made


async def test_a_tenants_pod_with_the_daemons_labels_is_not_run(api: ApiServer) -> None:
    """Where it cannot be told from the daemon, the administrator has to name the image."""
    for namespace in ("a-team", "z-daemons"):
        api.add_namespace(namespace)
        api.add(daemon(namespace))
    async with connected(api) as client:
        with pytest.raises(SelftestError, match=r"a-team, z-daemons .*give --image"):
            await outside.find(client, node="", image="", namespace="default")
        api.add_namespace(keys.SYSTEM_NAMESPACE)
        api.add(daemon(keys.SYSTEM_NAMESPACE))
        place = await outside.find(client, node="", image="", namespace="default")
    assert place.image == f"registry.test/{keys.SYSTEM_NAMESPACE}"


def test_a_cluster_without_gpus_says_so(command: Command, tmp_path: Path) -> None:
    """Exit code 2: nothing was measured."""
    with serving(ApiServer()) as url:
        result = command("selftest", "--kubeconfig", kubeconfig(tmp_path, url))
    assert result.code == 2
    assert "no node has a GPU that gpu-fraction knows" in result.err.replace(
        "has no GPU", "has a GPU"
    )


def test_inventories_that_cannot_be_read_are_no_gpus(api: ApiServer, selftest: Any) -> None:
    """As those of another version."""
    api.add(gpu_node("n1", text=json.dumps({"v": 99})))
    assert inventory.VERSION != 99
    assert selftest("--node", "n1").code == 2
