"""The contract of writes: what every API server does, ours and Kubernetes' own."""

import pytest

from gpu_fraction.kube import errors
from gpu_fraction.kube.client import Client
from gpu_fraction.kube.objects import Identity
from gpu_fraction.kube.requests import PatchKind, WriteOptions
from gpu_fraction.kube.resources import LEASES, NODES, SECRETS, Resource
from tests.builders.pods import plain_pod
from tests.contract.manifests import Manifest, lease, node, secret, widget


def meta(obj: Manifest) -> Manifest:
    """An object's metadata."""
    found: Manifest = obj["metadata"]
    return found


class WritingContract:
    """Create, replace, patch, delete."""

    async def test_create_gives_an_identity(self, client: Client, namespace: str) -> None:
        """Uid, version and time are the server's; the name can be had only once."""
        at = SECRETS.at(namespace=namespace)
        made = await client.create(at, secret("s", uid="mine", generation=9), Manifest)
        assert meta(made)["uid"] != "mine"
        assert meta(made)["namespace"] == namespace
        assert meta(made)["resourceVersion"].isdecimal()
        assert meta(made)["creationTimestamp"].endswith("Z")
        with pytest.raises(errors.AlreadyExistsError, match='secrets "s" already exists'):
            await client.create(at, secret("s"), Manifest)

    async def test_names_can_be_generated(self, client: Client, namespace: str) -> None:
        """The prefix gets five letters or digits."""
        manifest = secret("")
        manifest["metadata"] = {"generateName": "s-"}
        made = await client.create(SECRETS.at(namespace=namespace), manifest, Manifest)
        assert meta(made)["name"].startswith("s-")
        assert len(meta(made)["name"]) == 7

    async def test_objects_that_cannot_be_are_refused(
        self, client: Client, namespace: str
    ) -> None:
        """Wrong kind, wrong name, no name, a version on create, a namespace that is not there."""
        at = SECRETS.at(namespace=namespace)
        with pytest.raises(errors.BadRequestError):
            await client.create(at, plain_pod("p"), Manifest)
        with pytest.raises(errors.InvalidError, match=r"metadata\.name"):
            await client.create(at, secret("No_Name"), Manifest)
        with pytest.raises(errors.InvalidError, match="name or generateName is required"):
            await client.create(at, secret(""), Manifest)
        with pytest.raises(errors.BadRequestError, match="namespace"):
            await client.create(at, secret("s", namespace="default"), Manifest)
        with pytest.raises(errors.KubeError, match="resourceVersion"):
            await client.create(at, secret("s", resourceVersion="1"), Manifest)
        with pytest.raises(errors.NotFoundError, match='namespaces "absent-ns" not found'):
            await client.create(SECRETS.at(namespace="absent-ns"), secret("s"), Manifest)
        await client.create(at, secret("s"), Manifest)
        with pytest.raises(errors.BadRequestError, match="name of the object"):
            await client.replace(SECRETS.at("s", namespace=namespace), secret("t"), Manifest)

    async def test_a_dry_run_checks_and_stores_nothing(
        self, client: Client, namespace: str
    ) -> None:
        """Every verb can be tried out."""
        dry = WriteOptions(dry_run=True)
        at = SECRETS.at("s", namespace=namespace)
        collection = SECRETS.at(namespace=namespace)
        made = await client.create(collection, secret("s"), Manifest, dry)
        assert meta(made)["uid"]
        with pytest.raises(errors.NotFoundError):
            await client.get(at, Manifest)
        await client.create(collection, secret("s"), Manifest)
        with pytest.raises(errors.AlreadyExistsError):
            await client.create(collection, secret("s"), Manifest, dry)
        labels = {"metadata": {"labels": {"a": "1"}}}
        tried = await client.patch(at, PatchKind.MERGE, labels, Manifest, dry)
        assert meta(tried)["labels"] == {"a": "1"}
        assert "labels" not in meta(await client.get(at, Manifest))

    async def test_a_replace_holds_to_its_version(self, client: Client, namespace: str) -> None:
        """The current version is taken, an old one is a conflict, and so is another uid."""
        at = SECRETS.at("s", namespace=namespace)
        made = await client.create(SECRETS.at(namespace=namespace), secret("s"), Manifest)
        made["metadata"]["labels"] = {"a": "1"}
        again = await client.replace(at, made, Manifest)
        assert meta(again)["resourceVersion"] != meta(made)["resourceVersion"]
        made["metadata"]["labels"] = {"a": "2"}
        with pytest.raises(errors.ConflictError, match="has been modified"):
            await client.replace(at, made, Manifest)
        again["metadata"]["uid"] = "00000000-0000-0000-0000-000000000000"
        with pytest.raises(errors.ConflictError, match="UID in precondition"):
            await client.replace(at, again, Manifest)
        with pytest.raises(errors.NotFoundError):
            await client.replace(SECRETS.at("t", namespace=namespace), secret("t"), Manifest)

    async def test_some_kinds_must_name_their_version(
        self, client: Client, namespace: str, widgets: Resource
    ) -> None:
        """A Secret may be overwritten blindly; a Lease and a custom object may not."""
        await client.create(SECRETS.at(namespace=namespace), secret("s"), Manifest)
        await client.replace(SECRETS.at("s", namespace=namespace), secret("s"), Manifest)
        for resource, manifest in (
            (LEASES, lease("x")),
            (widgets, widget(widgets, "x", spec={})),
        ):
            await client.create(resource.at(namespace=namespace), manifest, Manifest)
            with pytest.raises(errors.InvalidError, match="must be specified for an update"):
                await client.replace(resource.at("x", namespace=namespace), manifest, Manifest)

    async def test_a_write_that_changes_nothing_makes_no_version(
        self, client: Client, namespace: str
    ) -> None:
        """No event goes to the watchers either."""
        at = SECRETS.at("s", namespace=namespace)
        made = await client.create(
            SECRETS.at(namespace=namespace), secret("s", labels={"a": "1"}), Manifest
        )
        same = await client.replace(at, made, Manifest)
        again = await client.patch(
            at, PatchKind.MERGE, {"metadata": {"labels": {"a": "1"}}}, Manifest
        )
        assert meta(same)["resourceVersion"] == meta(made)["resourceVersion"]
        assert meta(again)["resourceVersion"] == meta(made)["resourceVersion"]

    async def test_what_the_server_set_stays(self, client: Client, namespace: str) -> None:
        """A write cannot change the creation time, nor mark an object as deleted."""
        at = SECRETS.at("s", namespace=namespace)
        made = await client.create(SECRETS.at(namespace=namespace), secret("s"), Manifest)
        stamp = "2001-01-01T00:00:00Z"
        change = {"metadata": {"creationTimestamp": stamp, "labels": {"a": "1"}}}
        again = await client.patch(at, PatchKind.MERGE, change, Manifest)
        assert meta(again)["creationTimestamp"] == meta(made)["creationTimestamp"]
        with pytest.raises(errors.InvalidError, match=r"deletionTimestamp.*immutable"):
            await client.patch(
                at, PatchKind.MERGE, {"metadata": {"deletionTimestamp": stamp}}, Manifest
            )

    async def test_patches(self, client: Client, namespace: str, widgets: Resource) -> None:
        """Merge, JSON and strategic merge; a failing test operation and a wrong kind of patch."""
        at = SECRETS.at("s", namespace=namespace)
        await client.create(
            SECRETS.at(namespace=namespace), secret("s", labels={"a": "1", "b": "2"}), Manifest
        )
        merged = await client.patch(
            at, PatchKind.MERGE, {"metadata": {"labels": {"a": None, "c": "3"}}}, Manifest
        )
        assert meta(merged)["labels"] == {"b": "2", "c": "3"}
        operations = [
            {"op": "test", "path": "/metadata/labels/b", "value": "2"},
            {"op": "add", "path": "/metadata/labels/x.y~1z", "value": "4"},
        ]
        jumped = await client.patch(at, PatchKind.JSON, operations, Manifest)
        assert meta(jumped)["labels"] == {"b": "2", "c": "3", "x.y/z": "4"}
        operations[0]["value"] = "other"
        with pytest.raises(errors.InvalidError):
            await client.patch(at, PatchKind.JSON, operations, Manifest)
        await client.create(
            widgets.at(namespace=namespace), widget(widgets, "w", spec={}), Manifest
        )
        with pytest.raises(errors.BadRequestError) as caught:
            await client.patch(
                widgets.at("w", namespace=namespace), PatchKind.STRATEGIC, {}, Manifest
            )
        assert caught.value.status == 415

    async def test_a_version_in_a_patch_is_a_precondition(
        self, client: Client, namespace: str
    ) -> None:
        """What the Lease election relies on."""
        at = LEASES.at("l", namespace=namespace)
        made = await client.create(
            LEASES.at(namespace=namespace), lease("l", holderIdentity="a"), Manifest
        )
        change: Manifest = {
            "metadata": {"resourceVersion": meta(made)["resourceVersion"]},
            "spec": {"holderIdentity": "b"},
        }
        taken = await client.patch(at, PatchKind.MERGE, change, Manifest)
        assert taken["spec"]["holderIdentity"] == "b"
        change["spec"]["holderIdentity"] = "c"
        with pytest.raises(errors.ConflictError, match="has been modified"):
            await client.patch(at, PatchKind.MERGE, change, Manifest)

    async def test_deletions_hold_to_their_preconditions(
        self, client: Client, namespace: str
    ) -> None:
        """Another uid or version is a conflict; then it goes, and is not found."""
        at = SECRETS.at("s", namespace=namespace)
        made = await client.create(SECRETS.at(namespace=namespace), secret("s"), Manifest)
        with pytest.raises(errors.ConflictError, match="the UID in the precondition"):
            await client.delete(at, {"preconditions": {"uid": "00000000-0000-0000"}})
        with pytest.raises(errors.ConflictError, match="the ResourceVersion in the precondition"):
            await client.delete(at, {"preconditions": {"resourceVersion": "1"}})
        await client.delete(at, {"preconditions": {"uid": meta(made)["uid"]}})
        with pytest.raises(errors.NotFoundError, match='secrets "s" not found'):
            await client.delete(at)

    async def test_finalizers_put_a_deletion_off(self, client: Client, namespace: str) -> None:
        """The object stays, marked, until the last finalizer is taken off."""
        at = SECRETS.at("s", namespace=namespace)
        manifest = secret("s", finalizers=["example.test/hold"])
        await client.create(SECRETS.at(namespace=namespace), manifest, Manifest)
        await client.delete(at)
        marked = await client.get(at, Manifest)
        assert meta(marked)["deletionTimestamp"]
        assert meta(marked)["deletionGracePeriodSeconds"] == 0
        await client.patch(at, PatchKind.MERGE, {"metadata": {"finalizers": None}}, Identity)
        with pytest.raises(errors.NotFoundError):
            await client.get(at, Identity)

    async def test_status_and_spec_are_written_apart(
        self, client: Client, namespace: str, widgets: Resource
    ) -> None:
        """Each endpoint leaves the other half alone; only the spec counts generations."""
        at = widgets.at("w", namespace=namespace)
        manifest = widget(widgets, "w", spec={"size": 1}, status={"used": 9})
        made = await client.create(widgets.at(namespace=namespace), manifest, Manifest)
        assert "status" not in made
        assert meta(made)["generation"] == 1
        both: Manifest = {
            "metadata": {"labels": {"a": "1"}},
            "spec": {"size": 2},
            "status": {"used": 3},
        }
        status = await client.patch(at.sub("status"), PatchKind.MERGE, both, Manifest)
        assert (status["spec"], status["status"]) == ({"size": 1}, {"used": 3})
        assert meta(status)["generation"] == 1
        assert "labels" not in meta(status)
        both["status"] = {"used": 4}
        spec = await client.patch(at, PatchKind.MERGE, both, Manifest)
        assert (spec["spec"], spec["status"]) == ({"size": 2}, {"used": 3})
        assert meta(spec)["generation"] == 2
        assert meta(spec)["labels"] == {"a": "1"}
        spec["status"] = {"used": 5}
        replaced = await client.replace(at.sub("status"), spec, Manifest)
        assert (replaced["status"], meta(replaced)["generation"]) == ({"used": 5}, 2)

    async def test_a_kubelet_writes_node_status(self, client: Client, namespace: str) -> None:
        """Status is kept on create, conditions merge by type, annotations may ride along."""
        name = f"n-{namespace}"
        at = NODES.at(name)
        manifest = {**node(name), "status": {"capacity": {"example.test/gpu": "8"}}}
        made = await client.create(NODES.at(), manifest, Manifest)
        try:
            assert made["status"]["capacity"]["example.test/gpu"] == "8"
            for kind in ("Ready", "Sick", "Ready"):
                change = {
                    "metadata": {"annotations": {"a": kind}},
                    "spec": {"unschedulable": True},
                    "status": {"conditions": [{"type": kind, "status": "True"}]},
                }
                told = await client.patch(at.sub("status"), PatchKind.STRATEGIC, change, Manifest)
            assert sorted(c["type"] for c in told["status"]["conditions"]) == ["Ready", "Sick"]
            assert meta(told)["annotations"]["a"] == "Ready"
            assert "unschedulable" not in told.get("spec", {})
        finally:
            await client.delete(at)
