"""The contract of pods: defaults, gates, binding, what may change, time to stop."""

from typing import Any

import pytest

from gpu_fraction.kube import errors
from gpu_fraction.kube.client import Client
from gpu_fraction.kube.objects import Identity
from gpu_fraction.kube.requests import PatchKind
from gpu_fraction.kube.resources import PODS
from tests.builders.pods import plain_pod
from tests.contract.manifests import Manifest, to_node
from tests.contract.writing import meta


class PodContract:
    """What is special about pods."""

    async def test_a_new_pod_is_pending_with_defaults(
        self, client: Client, namespace: str
    ) -> None:
        """A status that was sent is dropped; requests default to limits."""
        manifest: Any = {**plain_pod("p"), "status": {"phase": "Running"}}
        manifest["spec"]["containers"][0]["resources"] = {"limits": {"example.test/gpu": "1"}}
        made = await client.create(PODS.at(namespace=namespace), manifest, Manifest)
        assert made["status"]["phase"] == "Pending"
        assert made["spec"]["restartPolicy"] == "Always"
        assert made["spec"]["schedulerName"] == "default-scheduler"
        assert made["spec"]["containers"][0]["resources"]["requests"]["example.test/gpu"] == "1"

    async def test_a_pod_cannot_change_what_it_asks_for(
        self, client: Client, namespace: str
    ) -> None:
        """Labels and images may change, resources and the node may not."""
        at = PODS.at("p", namespace=namespace)
        await client.create(PODS.at(namespace=namespace), plain_pod("p"), Manifest)
        change: Manifest = {
            "metadata": {"labels": {"a": "1"}},
            "spec": {"containers": [{"name": "c", "image": "example.test/j"}]},
        }
        made = await client.patch(at, PatchKind.STRATEGIC, change, Manifest)
        assert made["spec"]["containers"][0]["image"] == "example.test/j"
        change["spec"]["containers"][0]["resources"] = {"limits": {"example.test/gpu": "1"}}
        with pytest.raises(errors.InvalidError, match="pod updates may not change fields"):
            await client.patch(at, PatchKind.STRATEGIC, change, Manifest)
        with pytest.raises(errors.InvalidError, match="pod updates may not change fields"):
            await client.patch(at, PatchKind.MERGE, {"spec": {"nodeName": "n"}}, Manifest)

    async def test_a_gated_pod_waits_and_may_be_narrowed(
        self, client: Client, namespace: str
    ) -> None:
        """Until its gates are gone it is not bound; then its node selector is fixed."""
        at = PODS.at("p", namespace=namespace)
        manifest = plain_pod("p")
        manifest["spec"]["schedulingGates"] = [{"name": "example.test/wait"}]
        made = await client.create(PODS.at(namespace=namespace), manifest, Manifest)
        [condition] = made["status"]["conditions"]
        assert (condition["status"], condition["reason"]) == ("False", "SchedulingGated")
        with pytest.raises(
            errors.ConflictError, match=r'pods/binding "p": pod p has non-empty \.spec'
        ):
            await client.create(at.sub("binding"), to_node("n1", "p"), Manifest)
        narrowed = {"spec": {"nodeSelector": {"a": "1"}}}
        await client.patch(at, PatchKind.MERGE, narrowed, Manifest)
        opened = {"spec": {"schedulingGates": None}}
        told = await client.patch(at, PatchKind.MERGE, opened, Manifest)
        assert told["spec"]["nodeSelector"] == {"a": "1"}
        assert meta(told)["generation"] == 3
        for change, why in (
            ({"nodeSelector": {"b": "1"}}, "pod updates may not change fields"),
            ({"schedulingGates": [{"name": "example.test/wait"}]}, "only deletion is allowed"),
        ):
            with pytest.raises(errors.InvalidError, match=why):
                await client.patch(at, PatchKind.MERGE, {"spec": change}, Manifest)

    async def test_a_binding_names_the_node_and_annotates(
        self, client: Client, namespace: str
    ) -> None:
        """One request chooses the node and writes the annotation, and only once."""
        at = PODS.at("p", namespace=namespace)
        manifest = plain_pod("p", annotations={"kept": "yes"})
        made = await client.create(PODS.at(namespace=namespace), manifest, Manifest)
        nominated = {"status": {"nominatedNodeName": "n1"}}
        await client.patch(at.sub("status"), PatchKind.MERGE, nominated, Identity)
        binding = to_node("n1", "p", uid=meta(made)["uid"], annotations={"added": "yes"})
        answer = await client.create(at.sub("binding"), binding, Manifest)
        assert (answer["kind"], answer["status"]) == ("Status", "Success")
        bound = await client.get(at, Manifest)
        assert bound["spec"]["nodeName"] == "n1"
        assert meta(bound)["annotations"] == {"kept": "yes", "added": "yes"}
        assert meta(bound)["generation"] == 1
        scheduled = [c for c in bound["status"]["conditions"] if c["type"] == "PodScheduled"]
        assert [c["status"] for c in scheduled] == ["True"]
        assert "nominatedNodeName" not in bound["status"]
        with pytest.raises(
            errors.ConflictError, match='pods/binding "p": pod p is already assigned'
        ):
            await client.create(at.sub("binding"), binding, Manifest)

    async def test_a_binding_holds_to_its_uid_and_version(
        self, client: Client, namespace: str
    ) -> None:
        """A successor of the same name is not bound in its place."""
        at = PODS.at("p", namespace=namespace)
        await client.create(PODS.at(namespace=namespace), plain_pod("p"), Manifest)
        wrong = to_node("n1", "p", uid="00000000-0000-0000-0000-000000000000")
        with pytest.raises(errors.ConflictError, match="UID in precondition"):
            await client.create(at.sub("binding"), wrong, Manifest)
        wrong = to_node("n1", "p", resourceVersion="1")
        with pytest.raises(errors.ConflictError, match="ResourceVersion in precondition"):
            await client.create(at.sub("binding"), wrong, Manifest)
        assert "nodeName" not in (await client.get(at, Manifest))["spec"]

    async def test_a_pod_on_a_node_gets_time_to_stop(self, client: Client, namespace: str) -> None:
        """It stays, marked, until its kubelet deletes it with grace 0; others go at once."""
        collection = PODS.at(namespace=namespace)
        await client.create(collection, plain_pod("waiting"), Manifest)
        await client.delete(PODS.at("waiting", namespace=namespace))
        with pytest.raises(errors.NotFoundError):
            await client.get(PODS.at("waiting", namespace=namespace), Identity)
        at = PODS.at("running", namespace=namespace)
        made = await client.create(collection, plain_pod("running", node="n1"), Manifest)
        await client.delete(at)
        marked = await client.get(at, Manifest)
        assert meta(marked)["deletionGracePeriodSeconds"] == 30
        assert meta(marked)["generation"] == 2
        assert meta(marked)["deletionTimestamp"]
        await client.delete(
            at, {"preconditions": {"uid": meta(made)["uid"]}, "gracePeriodSeconds": 0}
        )
        with pytest.raises(errors.NotFoundError):
            await client.get(at, Identity)

    async def test_a_pod_that_has_ended_goes_at_once(self, client: Client, namespace: str) -> None:
        """There is nothing left to stop."""
        at = PODS.at("p", namespace=namespace)
        await client.create(PODS.at(namespace=namespace), plain_pod("p", node="n1"), Manifest)
        await client.patch(
            at.sub("status"), PatchKind.MERGE, {"status": {"phase": "Succeeded"}}, Identity
        )
        await client.delete(at)
        with pytest.raises(errors.NotFoundError):
            await client.get(at, Identity)
