"""What a daemon's own credentials allow at the API server."""

import json
from dataclasses import replace

import pytest

from tests.cluster.daemon import ACCOUNT, NAMESPACE, Daemon, wait_started
from tests.cluster.gpu_node.dra.rig import ON_A_NODE, pod, slices, template
from tests.cluster.harness.api_client import ApiClient, StatusError
from tests.cluster.harness.kubectl import Kubectl, KubectlError

pytestmark = [*ON_A_NODE, pytest.mark.matrix]


def test_a_daemon_writes_the_slices_of_its_own_node_alone(daemon: Daemon) -> None:
    """With the same ServiceAccount, and a token that names another node or none."""
    plane, (published,) = daemon.node.plane, slices(daemon)
    other = {"metadata": {"name": "other"}, "spec": {"podCIDR": "10.9.0.0/24"}}
    plane.kubectl.apply({"apiVersion": "v1", "kind": "Node", **other})
    for node, allowed in (("other", '"other"'), ("", "none")):
        written = plane.service_account_kubeconfig(NAMESPACE, ACCOUNT, node=node)
        foreign = plane.kubectl.acting_as(written)
        with pytest.raises(KubectlError, match="is refused; allowed: " + allowed):
            foreign("delete", "resourceslice", published["metadata"]["name"])
    plane.kubectl("delete", "node", "other")


@pytest.mark.parametrize("field", ["allocation", "reservedFor"])
async def test_a_daemon_gives_no_card_away(daemon: Daemon, kubectl: Kubectl, field: str) -> None:
    """What a claim gets is the scheduler's to say; the daemon writes what was prepared."""
    kubectl.apply(template("quarter"), pod("one", "quarter"))
    wait_started(kubectl, "one")
    (claim,) = kubectl.json("get", "resourceclaims")["items"]
    plane, name = daemon.node.plane, claim["metadata"]["name"]
    written = plane.service_account_kubeconfig(NAMESPACE, ACCOUNT, node=daemon.node.name)
    (user,) = json.loads(written.read_text())["users"]
    claims = f"/apis/resource.k8s.io/v1/namespaces/{kubectl.namespace}/resourceclaims"
    async with ApiClient(replace(plane.access, user=user["user"])) as own:
        with pytest.raises(StatusError, match="resourceclaims/binding"):
            await own.patch(f"{claims}/{name}/status", {"status": {field: None}})
