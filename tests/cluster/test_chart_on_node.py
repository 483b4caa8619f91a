"""The chart's own pods on a real node: installed, used, upgraded under load, taken away."""

import asyncio
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gpu_fraction.domain import assignment, keys
from scripts.image.build import Image
from tests.cluster.conftest import _require_own
from tests.cluster.harness import waiting
from tests.cluster.harness.api_client import ApiClient
from tests.cluster.harness.binaries import CONTROL_PLANE, NODE, Binaries
from tests.cluster.harness.certificates import Load
from tests.cluster.harness.cluster import Cluster
from tests.cluster.harness.kubectl import Kubectl
from tests.cluster.harness.quota import quota
from tests.cluster.harness.release import CARDS, NAME, TIMEOUT_S, WAIT, Release, releasable
from tests.cluster.harness.stored import everything
from tests.support.chart import CHART, Helm
from tests.support.console import commands

pytestmark = pytest.mark.long

ROOT = CHART.parents[1]
EXAMPLE = ROOT / "examples" / "notebook.yaml"
CARD_MIB = 81920
RATE = 50.0
"""Creates a second while all pods are replaced."""
PARTS = ("webhook", "controller", "scheduler", "nodeDaemon")
KEPT = {
    "CustomResourceDefinition  gpuquotas.gpu-fraction.dev",
    "APIService  v1alpha1.gpu-fraction.dev",
}
"""The definition of GPUQuotas, by choice, and what Kubernetes makes of it."""
RUN = {"image": "busybox:1", "imagePullPolicy": "Never", "command": ["/bin/sleep", "3600"]}


@pytest.fixture(scope="module")
def releases(
    existing: Cluster | None,
    binaries: Binaries,
    helm: Helm,
    product_image: Image,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Release]:
    """A cluster of one node."""
    _require_own(existing, binaries, (*CONTROL_PLANE, *NODE))
    folder = tmp_path_factory.mktemp("release")
    with releasable(binaries, helm, product_image, folder) as made:
        yield made


@pytest.fixture
def release(releases: Release) -> Iterator[Release]:
    """Installed and ready. RBAC refuses its accounts nothing, whatever the test does."""
    if not releases.installed:
        releases.install()
    yield releases
    if releases.installed:
        asked = releases.asked()
        assert "forbid" not in asked, asked["forbid"]


@pytest.fixture
def team(release: Release) -> Iterator[Kubectl]:
    """Kubectl in a tenant's namespace, whose pods hold no card afterwards."""
    with release.plane.namespace() as name:
        own = release.plane.kubectl.within(name)
        yield own
        own("delete", "pods", "--all", "--now", "--timeout=100s", timeout_s=120)


def variables(kubectl: Kubectl, pod: str, container: str = "main") -> dict[str, str]:
    """Those of a running container that tell it its slice."""
    printed = kubectl("exec", pod, f"--container={container}", "--", "/bin/env")
    pairs = (line.partition("=") for line in printed.splitlines())
    return {name: value for name, _, value in pairs if name.startswith("GPU_")}


def wait_ready(release: Release, kubectl: Kubectl, *pods: str) -> None:
    """Waits until pods run."""
    words = ("wait", "--for=condition=Ready", "--timeout=150s", *(f"pod/{pod}" for pod in pods))
    done = kubectl.run(*words, timeout_s=180)
    assert done.returncode == 0, f"{kubectl('describe', 'pods')}\n{release.state()}"


def gpu_pod(
    name: str, *, annotations: dict[str, str] | None = None, **spec: Any
) -> dict[str, Any]:
    """A pod whose container ``main`` has a quarter of a card, if the annotations say no other."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "annotations": annotations or {keys.FRACTION: "0.25"}},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "main", **RUN}],
            **spec,
        },
    }


def cleanup(release: Release) -> subprocess.CompletedProcess[str]:
    """What ``gpu-fraction cleanup --nodes`` says to an administrator."""
    words = ["cleanup", "--nodes", f"--kubeconfig={release.plane.kubectl.kubeconfig}"]
    return subprocess.run(
        [sys.executable, "-m", "gpu_fraction.cli.main", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=ROOT,
    )


def test_all_of_it_runs_as_pods(release: Release) -> None:
    """Ready is what Helm waits for: webhook, controller, scheduler with extender, node daemon."""
    ready: Counter[str] = Counter()
    for pod in release.pods():
        assert all(status["ready"] for status in pod["status"]["containerStatuses"])
        ready[pod["metadata"]["labels"]["app.kubernetes.io/component"]] += 1
    assert ready == {"webhook": 2, "controller": 2, "scheduler": 2, "node-daemon": 1}


@pytest.mark.matrix
def test_the_notebook_has_its_slice_and_a_quota_refuses_the_next(
    release: Release, team: Kubectl
) -> None:
    """The example as it is, and what its container is told."""
    team.apply(quota("team", team.namespace, hard={"gpus": 1}))
    team("wait", "gpuquota/team", "--for=condition=Ready", "--timeout=100s")
    team("apply", "-f", str(EXAMPLE))
    wait_ready(release, team, "notebook")
    stored = team.json("get", "pod", "notebook")
    ((share,),) = assignment.parse(stored["metadata"]["annotations"][keys.ASSIGNED]).values()
    assert (share.core_milli, share.memory_mib) == (250, CARD_MIB // 4)
    told = variables(team, "notebook", "notebook")
    assert (
        told.items()
        >= {
            "GPU_FRACTION": "0.25",
            "GPU_FRACTION_DEVICES": share.uuid,
            "GPU_FRACTION_SIMULATED": "true",
            "GPU_MEMORY_LIMIT_MIB": str(CARD_MIB // 4),
        }.items()
    )
    second = team.run("create", "-f", "-", stdin=gpu_pod("second"))
    assert "exceeded GPU quota: team, requested: " in second.stderr


def test_containers_get_the_cards_that_the_bindings_named(release: Release, team: Kubectl) -> None:
    """Binpack, the default: one card is full before the next is begun."""
    names = [f"pod-{i}" for i in range(6)]
    team.apply(*map(gpu_pod, names))
    wait_ready(release, team, *names)
    per_card: Counter[str] = Counter()
    for name in names:
        stored = team.json("get", "pod", name)
        (share,) = assignment.parse(stored["metadata"]["annotations"][keys.ASSIGNED])["main"]
        assert variables(team, name)["GPU_FRACTION_DEVICES"] == share.uuid
        per_card[share.uuid] += share.core_milli
    assert sorted(per_card.values()) == [500, 1000]


def test_a_sidecar_gets_the_slice_and_no_other_init_container_may(
    release: Release, team: Kubectl
) -> None:
    """The container beside it sees no card; the webhook refuses what ends before the others."""
    notes = {keys.FRACTION: "0.25", keys.CONTAINER_NAME: "proxy"}
    proxy = {**RUN, "name": "proxy", "restartPolicy": "Always"}
    team.apply(gpu_pod("beside", annotations=notes, initContainers=[proxy]))
    wait_ready(release, team, "beside")
    assert variables(team, "beside", "proxy")["GPU_FRACTION"] == "0.25"
    assert variables(team, "beside") == {}
    del proxy["restartPolicy"]
    refused = gpu_pod("before", annotations=notes, initContainers=[proxy])
    done = team.run("create", "-f", "-", stdin=refused)
    assert "only regular containers and sidecars" in done.stderr


def test_what_does_not_fit_a_card_waits_with_the_reason(team: Kubectl) -> None:
    """Enough is free on the node, but not on one card: the event says so, card by card."""
    notes = {keys.FRACTION: "0.1", keys.NUM_DEVICES: str(CARDS + 1)}
    team.apply(gpu_pod("too-many", annotations=notes))

    def told() -> bool:
        events = team.json("get", "events", "--field-selector=reason=FailedScheduling")["items"]
        return any("card" in event["message"] for event in events)

    waiting.wait_for(told)


async def test_upgrade_and_rollback_fail_no_create(release: Release, team: Kubectl) -> None:
    """All pods are replaced twice while pods are created; a running slice is not disturbed."""
    team("apply", "-f", str(EXAMPLE))
    await asyncio.to_thread(wait_ready, release, team, "notebook")
    before = team.json("get", "pod", "notebook")["status"]["containerStatuses"]
    replaced = release.names()
    values = {part: {"podAnnotations": {"team": "b"}} for part in PARTS}
    upgrade = ("upgrade", NAME, release.chart("0.3.0"), "--reset-then-reuse-values", *WAIT)
    async with ApiClient(release.plane.access) as client:
        load = Load(client, team.namespace, RATE)
        async with load.at_work():
            await asyncio.to_thread(release.run, *upgrade, values=values)
            upgraded = release.pods()
            await asyncio.to_thread(release.run, "rollback", NAME, "1", *WAIT)
            # The last are the webhook's, which serve until the API server leaves them.
            await asyncio.to_thread(waiting.wait_for, lambda: not replaced & release.names())
    print(load.report("helm upgrade and rollback"))
    assert (load.failed, load.done > 0) == (Counter(), True)
    assert all(pod["metadata"]["annotations"]["team"] == "b" for pod in upgraded)
    assert not any("team" in pod["metadata"].get("annotations", {}) for pod in release.pods())
    assert team.json("get", "pod", "notebook")["status"]["containerStatuses"] == before
    assert variables(team, "notebook", "notebook")["GPU_FRACTION"] == "0.25"


def test_uninstall_leaves_nothing_that_stops_a_pod(release: Release) -> None:
    """Afterwards the cluster holds what it held before, but the definition of GPUQuotas."""
    kubectl = release.plane.kubectl
    accounts = {words.split()[0] for words in release.asked()["allow"]}
    parts = ("webhook", "controller", "scheduler", "node-daemon")
    assert accounts >= {f"{NAME}-{part}" for part in parts}, "the audit log lacks a part"

    assert cleanup(release).returncode == 1, "the node daemon would write it again"

    release.run("uninstall", NAME)
    kubectl("create", "-f", "-", stdin=gpu_pod("at-once"))
    kubectl("delete", "pod", "at-once", "--now")
    release.delete_namespace()
    cleaned = cleanup(release)
    assert f"node/{release.node.name} lost " in cleaned.stdout, cleaned.stderr
    # The kubelet's own, which it forgets five minutes after the plugin has gone.
    assert release.node_names() - {keys.SLOT} == release.node_before
    try:
        waiting.wait_for(lambda: everything(kubectl) - release.before == KEPT)
    except TimeoutError:
        assert everything(kubectl) - release.before == KEPT
    assert release.before <= everything(kubectl)


def test_the_readme_installs_it(release: Release, tmp_path: Path) -> None:
    """Its commands, one after the other and as they are, print what it says."""
    release.run("uninstall", NAME)
    release.delete_namespace()
    for name, program in (
        ("kubectl", release.plane.kubectl.binary),
        ("helm", release.helm.program),
    ):
        (tmp_path / name).symlink_to(program)
    environ = {
        **release.plane.kubectl.env,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "KUBECONFIG": str(release.plane.kubectl.kubeconfig),
        "LC_ALL": "C",
    }
    ran = 0
    for command, wanted in commands(ROOT / "README.md", "## On a cluster"):
        done = subprocess.run(
            ["sh", "-c", command],
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
            cwd=ROOT,
            env=environ,
        )
        assert wanted.fullmatch(done.stdout), f"{command}{done.stdout}{done.stderr}"
        ran += 1
    assert ran == 5
    release.plane.kubectl("delete", "pod", "notebook", "--now")
