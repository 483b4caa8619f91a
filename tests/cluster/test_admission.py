"""The webhook as users meet it: kubectl, controllers and a real API server before it."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.harness.admission import REWRITE, Admission, installed
from tests.cluster.harness.api_client import ApiClient, StatusError
from tests.cluster.harness.control_plane import ControlPlane
from tests.cluster.harness.kubectl import Kubectl
from tests.cluster.harness.stored import holds, own_tolerations

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))
CREATES = 300

pytestmark = pytest.mark.usefixtures("admission")


@pytest.fixture(scope="module")
def admission(own_control_plane: ControlPlane) -> Iterator[Admission]:
    """Two replicas, registered."""
    with installed(own_control_plane, replicas=2) as running:
        yield running


def pod(name: str = "pod", **annotations: str) -> dict[str, Any]:
    """A small pod; annotation names are given with ``_`` for ``-``."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "annotations": {k.replace("_", "-"): v for k, v in annotations.items()},
        },
        "spec": {"containers": [{"name": "main", "image": "docker.io/library/busybox:1"}]},
    }


def printed(file: Path) -> dict[str, Any]:
    """What ``gpu-fraction mutate`` makes of a file."""
    done = subprocess.run(
        [sys.executable, "-m", "gpu_fraction.cli.main", "mutate", "-f", str(file)]
        + ["-o", "json", *REWRITE],
        check=True,
        capture_output=True,
        text=True,
    )
    return dict(json.loads(done.stdout))


async def pods_of(client: ApiClient, namespace: str, count: int) -> list[dict[str, Any]]:
    """The namespace's pods, once there are so many."""
    path = f"/api/v1/namespaces/{namespace}/pods"
    found = await client.wait_for(path, lambda pods: len(pods["items"]) >= count)
    return list(found["items"])


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
async def test_what_is_stored_is_what_the_command_prints(
    file: Path, kubectl: Kubectl, client: ApiClient, namespace: str
) -> None:
    """Each example's pods hold exactly what ``gpu-fraction mutate`` prints for it."""
    kubectl("apply", "-f", str(file))
    expected = printed(file)
    if expected["kind"] == "Pod":
        template, count = expected, 1
    else:
        template = expected["spec"]["template"]
        count = expected["spec"].get("replicas", 1)
    for stored in await pods_of(client, namespace, count):
        stored["spec"]["tolerations"] = own_tolerations(stored["spec"])
        assert holds(stored["spec"], template["spec"], "spec") == []
        wanted = template["metadata"]["annotations"]
        ours = {k: v for k, v in stored["metadata"]["annotations"].items() if "gpu-" in k}
        ours.pop("kubectl.kubernetes.io/last-applied-configuration", None)
        assert ours == wanted


def test_applying_twice_changes_nothing(kubectl: Kubectl) -> None:
    """The second apply of the same manifest finds the pod as it wants it."""
    file = str(next(f for f in EXAMPLES if f.stem == "notebook"))
    kubectl("apply", "-f", file)
    first = kubectl.json("get", "pod", "notebook")
    kubectl("apply", "-f", file)
    second = kubectl.json("get", "pod", "notebook")
    assert second["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    assert second["spec"] == first["spec"]


def test_dry_run_shows_the_mutation_and_stores_nothing(kubectl: Kubectl) -> None:
    """``--dry-run=server`` is answered like a create."""
    shown = kubectl.json("create", "--dry-run=server", "-f", "-", stdin=pod(gpu_fraction="0.25"))
    limits = shown["spec"]["containers"][0]["resources"]["limits"]
    assert limits["gpu-fraction.dev/memory-mib"] == "20480"
    assert kubectl("get", "pods", "-o", "name") == ""


def test_generated_names_work(kubectl: Kubectl) -> None:
    """A pod without a name of its own is rewritten too."""
    manifest = pod(gpu_fraction="0.25")
    manifest["metadata"]["generateName"] = manifest["metadata"].pop("name") + "-"
    made = kubectl.json("create", "-f", "-", stdin=manifest)
    assert made["spec"]["schedulerName"] == "gpu-fraction-scheduler"


def test_warnings_reach_the_user(kubectl: Kubectl) -> None:
    """Kubectl prints how the share was turned into MiB."""
    done = kubectl.run("create", "-f", "-", stdin=pod(gpu_fraction="0.25"))
    assert "Warning: container main: 25% of a GPU's memory is 20480 MiB" in done.stderr


async def test_stateful_set_and_cron_job_pods_are_rewritten(
    kubectl: Kubectl, client: ApiClient, namespace: str
) -> None:
    """Pods of every workload controller go the same way."""
    template = {
        "metadata": {"labels": {"app": "db"}, "annotations": {"gpu-fraction": "0.1"}},
        "spec": pod()["spec"],
    }
    stateful = {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "db"},
        "spec": {
            "serviceName": "db",
            "selector": {"matchLabels": {"app": "db"}},
            "template": template,
        },
    }
    once = {**template, "spec": {**template["spec"], "restartPolicy": "Never"}}
    cron = {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": "nightly"},
        "spec": {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": once}}},
    }
    kubectl.apply(stateful)
    await client.create(f"/apis/batch/v1/namespaces/{namespace}/cronjobs", cron)
    path = f"/api/v1/namespaces/{namespace}/pods"
    found = await client.wait_for(path, lambda pods: len(pods["items"]) >= 2, timeout_s=180)
    for item in found["items"]:
        limits = item["spec"]["containers"][0]["resources"]["limits"]
        assert limits["gpu-fraction.dev/core-milli"] == "100"
    owners = {item["metadata"]["ownerReferences"][0]["kind"] for item in found["items"]}
    assert owners == {"StatefulSet", "Job"}


def test_a_refusal_reads_well_on_the_terminal(kubectl: Kubectl) -> None:
    """Kubectl prints the field, the value and what is allowed."""
    done = kubectl.run("create", "-f", "-", stdin=pod(gpu_fraction="1.5"))
    assert done.returncode == 1
    assert (
        'admission webhook "mutate.gpu-fraction.dev" denied the request: '
        'metadata.annotations[gpu-fraction]: "1.5" is more than one GPU but not a whole number'
    ) in done.stderr
    assert "allowed: a share of one GPU from 0.001 to 1" in done.stderr


@pytest.mark.parametrize("kind", ["ReplicaSet", "Job"])
async def test_a_refused_pod_shows_in_its_owners_events(
    kind: str, kubectl: Kubectl, client: ApiClient, namespace: str
) -> None:
    """``kubectl describe`` of the owner says why it has no pod."""
    spec = {**pod()["spec"], "restartPolicy": "Never"} if kind == "Job" else pod()["spec"]
    template = {
        "metadata": {"labels": {"app": "x"}, "annotations": {"gpu-fracton": "0.5"}},
        "spec": spec,
    }
    owner: dict[str, Any] = {
        "apiVersion": "batch/v1" if kind == "Job" else "apps/v1",
        "kind": kind,
        "metadata": {"name": "owner"},
        "spec": {"template": template},
    }
    if kind == "ReplicaSet":
        owner["spec"]["selector"] = {"matchLabels": {"app": "x"}}
    kubectl.apply(owner)
    events = await client.wait_for(
        f"/api/v1/namespaces/{namespace}/events",
        lambda events: any(e["reason"] == "FailedCreate" for e in events["items"]),
    )
    message = next(e["message"] for e in events["items"] if e["reason"] == "FailedCreate")
    assert 'did you mean "gpu-fraction"?' in message
    assert message.split("request: ", 1)[1] in kubectl("describe", kind, "owner")


def test_a_pod_without_gpu_is_untouched(kubectl: Kubectl) -> None:
    """Nothing of ours is in a pod that asks for nothing of ours."""
    kubectl.apply(pod())
    stored = kubectl("get", "pod", "pod", "-o", "json")
    assert "gpu-fraction" not in stored.replace('"gpu-', "")
    assert kubectl.json("get", "pod", "pod")["spec"]["schedulerName"] == "default-scheduler"


def _refused_change(kubectl: Kubectl, *words: str) -> str:
    done = kubectl.run(*words)
    assert done.returncode != 0, done.stdout
    return done.stderr


def test_a_system_annotation_is_refused_at_creation(kubectl: Kubectl) -> None:
    """A user cannot bring a request or an assignment along."""
    for key in ("request", "assigned"):
        manifest = pod(gpu_fraction="0.25")
        manifest["metadata"]["annotations"][f"gpu-fraction.dev/{key}"] = "{}"
        done = kubectl.run("create", "-f", "-", stdin=manifest)
        assert f"metadata.annotations[gpu-fraction.dev/{key}]" in done.stderr
        assert "only gpu-fraction sets it" in done.stderr


def test_a_system_annotation_is_refused_by_later_edit(kubectl: Kubectl) -> None:
    """Neither ``kubectl annotate`` nor a change of the share gets through."""
    kubectl.apply(pod(gpu_fraction="0.25"))
    text = _refused_change(kubectl, "annotate", "pod", "pod", "gpu-fraction.dev/assigned={}")
    assert 'admission webhook "changes.gpu-fraction.dev" denied' in text
    text = _refused_change(kubectl, "annotate", "--overwrite", "pod", "pod", "gpu-fraction=0.5")
    assert "cannot change after the pod is created" in text
    kubectl("label", "pod", "pod", "free=yes")
    kubectl("annotate", "pod", "pod", "example.com/free=yes")


async def test_a_system_annotation_is_refused_by_patch_on_status(
    kubectl: Kubectl, client: ApiClient, namespace: str
) -> None:
    """``pods/status`` can change annotations; not ours."""
    kubectl.apply(pod(gpu_fraction="0.25"))
    path = f"/api/v1/namespaces/{namespace}/pods/pod/status"
    with pytest.raises(StatusError) as refused:
        await client.patch(path, {"metadata": {"annotations": {"gpu-fraction.dev/request": "x"}}})
    assert refused.value.code == 403
    assert "only gpu-fraction sets it" in refused.value.message
    await client.patch(path, {"status": {"message": "still works"}})


@pytest.mark.parametrize("road", ["pods/pod/binding", "bindings"])
async def test_a_system_annotation_is_refused_in_a_binding(
    road: str, kubectl: Kubectl, client: ApiClient, namespace: str
) -> None:
    """The API server merges a Binding's annotations into the pod; not ours from users."""
    kubectl.apply(pod(gpu_fraction="0.25"))
    binding = {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": "pod", "annotations": {"gpu-fraction.dev/assigned": "{}"}},
        "target": {"kind": "Node", "name": "nowhere"},
    }
    with pytest.raises(StatusError) as refused:
        await client.create(f"/api/v1/namespaces/{namespace}/{road}", binding)
    assert refused.value.code == 403
    assert "only gpu-fraction sets it" in refused.value.message


async def test_restarting_replicas_in_turn_fails_no_create(
    admission: Admission, client: ApiClient, namespace: str
) -> None:
    """300 creates while both replicas are restarted: all of them succeed."""
    path = f"/api/v1/namespaces/{namespace}/pods"
    done = 0
    running = asyncio.Event()

    async def create(numbers: "Iterator[int]") -> None:
        nonlocal done
        for number in numbers:
            await client.create(path, pod(f"p{number}", gpu_fraction="0.001"))
            done += 1
            if done > CREATES // 10:
                running.set()

    async def restart() -> None:
        await running.wait()
        for replica in admission.replicas:
            await asyncio.to_thread(replica.stop, 30)
            replica.log.unlink()
            await asyncio.to_thread(replica.start)
            await asyncio.to_thread(admission.wait_listening, replica)
            # The balancer, like the API server's endpoints, takes a moment to see it.
            await asyncio.sleep(0.5)

    numbers = iter(range(CREATES))
    restarting = asyncio.create_task(restart(), name="restart")
    async with asyncio.TaskGroup() as tasks:
        for _ in range(4):
            tasks.create_task(create(numbers), name="create")
    if not restarting.done():
        extra = iter(range(CREATES, 100 * CREATES))
        while not restarting.done():
            await client.create(path, pod(f"p{next(extra)}", gpu_fraction="0.001"))
    await restarting
    assert done == CREATES


def test_while_the_webhook_is_down_only_gpu_pods_fail(
    admission: Admission, kubectl: Kubectl
) -> None:
    """GPU pods fail closed with a readable error; others are created as ever."""
    admission.front.kill()
    try:
        done = kubectl.run("create", "-f", "-", stdin=pod("gpu", gpu_fraction="0.25"))
        assert done.returncode == 1
        assert 'failed calling webhook "mutate.gpu-fraction.dev"' in done.stderr
        kubectl.apply(pod("plain"))
    finally:
        admission.front.start()
        admission.front.wait_until(
            lambda: (
                kubectl.run(
                    "create",
                    "--dry-run=server",
                    "-f",
                    "-",
                    stdin=pod("again", gpu_fraction="0.25"),
                ).returncode
                == 0
            ),
            90,
            "serving again",
        )
