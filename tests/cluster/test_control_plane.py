import secrets
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cluster.harness.api_client import ApiClient, StatusError
from tests.cluster.harness.binaries import Binaries
from tests.cluster.harness.cluster import Cluster, existing_cluster
from tests.cluster.harness.control_plane import ControlPlane
from tests.cluster.harness.kubectl import Kubectl
from tests.cluster.harness.options import ControlPlaneOptions
from tests.cluster.harness.waiting import wait_for


def test_each_test_has_a_namespace_of_its_own(kubectl: Kubectl, namespace: str) -> None:
    """What a test creates without naming a namespace lies in its own."""
    kubectl("create", "configmap", "seen")
    found = kubectl.json("get", "configmap", "seen")
    assert found["metadata"]["namespace"] == namespace


def test_controllers_and_scheduler_work(kubectl: Kubectl) -> None:
    """A Deployment gets its pod, and the scheduler says that no node fits it."""
    template = {
        "metadata": {"labels": {"app": "web"}},
        "spec": {
            "nodeSelector": {"no-node": "has-this"},
            "containers": [{"name": "web", "image": "busybox:1"}],
        },
    }
    kubectl.apply(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "web"},
            "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": template},
        }
    )
    kubectl("wait", "deployment/web", "--for=jsonpath={.status.replicas}=1", "--timeout=90s")
    kubectl("wait", "pod", "-l", "app=web", "--for=condition=PodScheduled=false", "--timeout=90s")


async def test_client_reads_what_it_wrote(client: ApiClient, namespace: str) -> None:
    """The asynchronous client creates, changes, lists and deletes."""
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    manifest = {"metadata": {"name": "a"}, "data": {"k": "1"}}
    await client.create(path, manifest)
    await client.patch(f"{path}/a", {"data": {"k": "2"}})
    assert (await client.get(f"{path}/a"))["data"] == {"k": "2"}
    with pytest.raises(StatusError) as refused:
        await client.create(path, manifest)
    assert (refused.value.code, refused.value.reason) == (409, "AlreadyExists")
    await client.delete(f"{path}/a")
    names = [item["metadata"]["name"] for item in (await client.get(path))["items"]]
    assert "a" not in names


def test_service_account_is_refused_what_it_was_not_granted(
    control_plane: Cluster, kubectl: Kubectl, namespace: str
) -> None:
    """RBAC is in force: an account lists pods only after a role lets it."""
    kubeconfig = control_plane.service_account_kubeconfig(namespace, "default")
    account = kubectl.acting_as(kubeconfig)
    refused = account.run("get", "pods")
    assert "forbidden" in refused.stderr
    assert f'"system:serviceaccount:{namespace}:default" cannot list' in refused.stderr
    kubectl("create", "role", "reader", "--verb=list", "--resource=pods")
    kubectl("create", "rolebinding", "r", "--role=reader", f"--serviceaccount={namespace}:default")
    wait_for(lambda: account.run("get", "pods").returncode == 0)
    assert "forbidden" in account.run("get", "secrets").stderr


def test_user_certificate_carries_groups(
    own_control_plane: ControlPlane, kubectl: Kubectl
) -> None:
    """A user is known by name and groups: a role granted to one group suffices."""
    group = f"team-{secrets.token_hex(4)}"
    kubeconfig = own_control_plane.user_kubeconfig("jane", "people", group)
    assert stat.S_IMODE(kubeconfig.stat().st_mode) == 0o600
    jane = kubectl.acting_as(kubeconfig)
    assert 'User "jane" cannot list' in jane.run("get", "pods").stderr
    kubectl("create", "role", "reader", "--verb=list", "--resource=pods")
    kubectl("create", "rolebinding", "reader", "--role=reader", f"--group={group}")
    wait_for(lambda: jane.run("get", "pods").returncode == 0)


def test_killed_api_server_comes_back_with_its_objects(
    own_control_plane: ControlPlane, kubectl: Kubectl
) -> None:
    """Components can be killed and started again; what etcd holds stays."""
    kubectl("create", "configmap", "kept")
    own_control_plane.api_server.kill()
    assert kubectl.run("get", "configmap", "kept").returncode != 0
    own_control_plane.api_server.start()
    own_control_plane.api_server.wait_healthy()
    assert kubectl("get", "configmap", "kept", "-o", "name") == "configmap/kept\n"


def test_existing_cluster_is_used_by_its_kubeconfig(
    own_control_plane: ControlPlane, binaries: Binaries, tmp_path: Path
) -> None:
    """What KUBECONFIG_TEST names serves like an own cluster: namespaces, tokens, kubectl."""
    found = existing_cluster(own_control_plane.kubectl.kubeconfig, binaries, tmp_path)
    assert found.version == own_control_plane.version
    with found.namespace() as namespace:
        account = found.service_account_kubeconfig(namespace, "default")
        assert "forbidden" in found.kubectl.acting_as(account).run("get", "nodes").stderr


def test_options_reach_the_components(
    start_control_plane: Callable[[ControlPlaneOptions], ControlPlane],
) -> None:
    """A test may have a second control plane, with its own flags and without a scheduler."""
    options = ControlPlaneOptions(
        feature_gates={"AllAlpha": False},
        flags={"kube-apiserver": {"event-ttl": "7m"}},
        scheduler=False,
    )
    plane = start_control_plane(options)
    assert not plane.scheduler.running
    command = Path(f"/proc/{plane.api_server.pid}/cmdline").read_text().split("\0")
    assert "--event-ttl=7m" in command
    assert "--feature-gates=AllAlpha=false" in command
