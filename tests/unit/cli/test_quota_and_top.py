"""``gpu-fraction quota`` and ``gpu-fraction top`` against a server with a small cluster."""

import asyncio
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry, Gauge

from gpu_fraction.dashboard import usage
from gpu_fraction.dashboard.objects import COMPONENT, ObjectMeta, Pod, PodSpec
from gpu_fraction.kube.access import Access
from gpu_fraction.kube.client import connect
from gpu_fraction.sandbox.apiserver import Answer, ApiServer, Fault
from gpu_fraction.serving.probes import add_probes
from tests.builders.views import Raw, gpu_pod, quota, server, small_cluster
from tests.support.access import fixed, kubeconfig, serving
from tests.unit.cli.conftest import Command, Result

Ask = Callable[..., Result]
DAEMON_HOST = "127.94.46.1"
"""An address of its own, because the daemons' port is fixed."""


@pytest.fixture
def api() -> ApiServer:
    """A server with the small cluster."""
    return server(*small_cluster())


@pytest.fixture
def ask(api: ApiServer, tmp_path: Path, command: Command) -> Iterator[Ask]:
    """Run a command against it."""
    with serving(api) as url:
        file = kubeconfig(tmp_path, url)
        yield lambda name, *words: command(name, f"--kubeconfig={file}", *words)


def tables(text: str) -> list[list[list[str]]]:
    """The cells of each table, with its header."""
    return [[re.split(r"  +", line) for line in t.splitlines()] for t in text.split("\n\n")]


def test_who_uses_a_quota_and_what_would_fit(ask: Ask) -> None:
    """Three tables: amounts, pods, and the largest share by model."""
    found = ask("quota", "-n", "team-a", "--ascii")
    assert (found.code, found.err) == (0, "")
    budgets, pods, fits = tables(found.out)
    assert budgets[1] == [
        *("team-a", "budget", "cores", "500m", "0", "1", "500m", "#####.....", "50%"),
    ]
    assert pods[2][:6] == ["team-a", "train", "running", "0.5", "40Gi", "1"]
    assert fits[1:] == [
        ["team-a", "A100-SXM4-80GB", "0.5", "budget: cores"],
        ["team-a", "Tesla T4", "0.5", "budget: cores"],
    ]


def test_cards_bound_what_fits_where_the_quota_does_not(ask: Ask) -> None:
    """The largest free share of one card."""
    fits = tables(ask("quota", "-n", "team-b").out)[2]
    assert fits[1:] == [["team-b", "A100-SXM4-80GB", "1", "-"], ["team-b", "Tesla T4", "1", "-"]]


def test_quotas_for_programs(ask: Ask) -> None:
    """Amounts as integers: thousandths, MiB and counts."""
    found = json.loads(ask("quota", "-A", "-o", "json").out)
    assert found["kind"] == "QuotaList"
    budget = next(item for item in found["items"] if item["name"] == "budget")
    assert budget["budgets"][1] == {
        "resource": "memory",
        "used": 40960,
        "reserved": 0,
        "hard": 81920,
        "free": 40960,
    }
    assert {pod["name"] for pod in budget["pods"]} == {"next", "train"}
    assert ask("quota", "-A", "-o", "name").out.split() == ["gpuquota/budget", "gpuquota/all"]
    assert ask("quota", "-A", "-o", "csv").out.splitlines()[0].startswith("namespace,quota,")


def test_a_quota_by_name_and_one_that_is_not_there(ask: Ask) -> None:
    """The second is an empty answer."""
    assert len(tables(ask("quota", "all", "-n", "team-b").out)[0]) == 2
    none = ask("quota", "other", "-n", "team-b")
    assert (none.code, none.out, none.err) == (0, "", "No GPUQuotas found in namespace team-b.\n")


def test_a_server_without_the_crd_is_told_from_one_without_quotas(
    tmp_path: Path, command: Command
) -> None:
    """The product may not be installed."""
    with serving(ApiServer()) as url:
        found = command("quota", f"--kubeconfig={kubeconfig(tmp_path, url)}")
    assert found.code == 0
    assert "is gpu-fraction installed?" in found.err


def test_a_quota_that_was_not_counted_is_told(ask: Ask, api: ApiServer) -> None:
    """Its amounts may be old, and so may be the answer."""
    fresh = quota("fresh", {"cores": "a lot"})
    api.add(fresh)
    found = ask("quota", "-n", "team-a")
    assert "quota team-a/fresh: not counted yet" in found.err
    assert "quota team-a/fresh: spec.hard.cores" in found.err


def test_without_the_right_to_quotas_there_is_no_answer(ask: Ask, api: ApiServer) -> None:
    """An empty table would be a wrong one."""
    api.faults.add(Fault(Answer(403, "no"), "list", "gpuquotas.gpu-fraction.dev", times=None))
    found = ask("quota")
    assert (found.code, found.out) == (2, "")
    assert "gpuquotas: forbidden: no" in found.err


def daemon_pod(address: str, node: str = "n1") -> Raw:
    """A node daemon."""
    labels = {"app.kubernetes.io/name": "gpu-fraction", COMPONENT: usage.DAEMON}
    metadata = {"name": f"daemon-{node}", "namespace": "gpu-fraction-system", "labels": labels}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"nodeName": node, "containers": [{"name": "node-daemon", "image": "i"}]},
        "status": {"phase": "Running", "podIP": address},
    }


def metrics() -> CollectorRegistry:
    """What a daemon says about the slices of the small cluster."""
    registry = CollectorRegistry()
    labels = ("namespace", "pod", "container", "uuid")
    for name, value in (("memory_used_bytes", 30 * 2**30), ("busy_ratio", 0.42)):
        gauge = Gauge(f"gpu_fraction_container_{name}", "x", labels, registry=registry)
        gauge.labels("team-a", "train", "main", "GPU-a").set(value)
    for name, value in (("used", 50 * 2**30), ("foreign", 2**30)):
        gauge = Gauge(f"gpu_fraction_card_memory_{name}_bytes", "x", ["uuid"], registry=registry)
        gauge.labels("GPU-a").set(value)
    return registry


@contextmanager
def daemon(host: str) -> Iterator[None]:
    """Serve the metrics of a daemon on a loop of its own."""
    started = threading.Event()
    loop, stop = asyncio.new_event_loop(), asyncio.Event()

    async def serve() -> None:
        app = web.Application()
        add_probes(app, metrics(), ready=lambda: None)
        runner = web.AppRunner(app)
        await runner.setup()
        try:
            await web.TCPSite(runner, host, usage.PORT).start()
            started.set()
            await stop.wait()
        finally:
            await runner.cleanup()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), name="daemon")
    thread.start()
    try:
        assert started.wait(10)
        yield
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


def test_measured_use_beside_what_was_given(ask: Ask, api: ApiServer) -> None:
    """Of slices, and of cards with memory that no pod accounts for."""
    api.add_namespace("gpu-fraction-system")
    api.add(daemon_pod(DAEMON_HOST))
    with daemon(DAEMON_HOST):
        slices = ask("top", "-A", "--direct", "--ascii")
        cards = ask("top", "--by=card", "--direct", "--ascii")
        listed = ask("top", "-n", "team-a", "--direct", "-o", "json")
    assert (slices.code, slices.err) == (0, "")
    (table,) = tables(slices.out)
    assert table[1][2:] == ["main", "n1", "0", "30Gi", "40Gi", "#######...", "75%", "42%"]
    assert table[2][4:] == ["0", "-", "20Gi", "-", "-"]
    assert tables(cards.out)[0][1][3:] == ["50Gi", "80Gi", "######....", "62%", "1Gi"]
    assert "no measured use of n2: no running node daemon is seen there" in cards.err
    (item,) = json.loads(listed.out)["items"]
    assert (item["usedMib"], item["limitMib"], item["busyRatio"]) == (30720, 40960, 0.42)


def test_where_use_is_not_reachable_limits_are_shown(ask: Ask, api: ApiServer) -> None:
    """With the reason, once for all nodes that share it."""
    api.add_namespace("gpu-fraction-system")
    api.add(daemon_pod("", "n1"), gpu_pod("other", namespace="team-b"))
    found = ask("top", "-A")
    assert found.code == 0
    assert tables(found.out)[0][1][5:] == ["-", "40Gi", "-", "-"]
    assert "no measured use of n1: " in found.err
    nothing = ask("top", "-n", "default")
    assert (nothing.code, nothing.out) == (0, "")
    assert "No slices found in namespace default." in nothing.err


async def test_metrics_come_through_the_api_servers_proxy() -> None:
    """Where the pod is named without a port, so that its declared one is taken."""
    asked = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.Response(body=b'gpu_fraction_container_busy_ratio{uuid="GPU-a"} 0.5\n')

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        async with connect(fixed(Access(url)), component="test") as client:
            pod = Pod(metadata=ObjectMeta(name="d", namespace="s"), spec=PodSpec(node_name="n"))
            (found,) = await usage.read([pod], usage.through(client))
    finally:
        await runner.cleanup()
    assert asked == ["/api/v1/namespaces/s/pods/d/proxy/metrics"]
    assert found.slices["", "", "", "GPU-a"].busy == 0.5


@pytest.mark.parametrize(
    "body", [b"<html>", b"a{", b"\xff\xfe", b'x{uuid="a"} many\n', b'a{b="c", ="e"} 1 2\nx{n']
)
async def test_metrics_that_are_none_are_a_problem_of_their_node(body: bytes) -> None:
    """Not of the others."""

    async def fetch(pod: Pod) -> bytes:
        return body if pod.metadata.name == "bad" else b""

    pods = [Pod(metadata=ObjectMeta(name=name, namespace="s")) for name in ("bad", "good")]
    bad, good = await usage.read(pods, fetch)
    assert bad.problem.startswith("bad: ")
    assert not good.problem


@pytest.mark.parametrize("number", ["NaN", "+Inf"])
def test_a_use_that_is_no_number_is_not_known(number: str) -> None:
    """As where the daemon says nothing."""
    name = "gpu_fraction_card_memory_used_bytes"
    body = f'{name}{{uuid="a"}} {number}\n{name}{{uuid="b"}} 1\n'
    assert [*usage.parse("n", body.encode()).cards] == ["b"]
