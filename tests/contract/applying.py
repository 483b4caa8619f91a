"""The contract of server-side apply."""

import pytest

from gpu_fraction.kube import errors
from gpu_fraction.kube.client import Client
from gpu_fraction.kube.requests import PatchKind, WriteOptions
from gpu_fraction.kube.resources import NODES, SECRETS, VALIDATING_WEBHOOKS, Address, Resource
from tests.contract.manifests import Manifest, node, secret, widget


def owned(**metadata: object) -> Manifest:
    """Metadata of the Secret ``s`` to own."""
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", **metadata}}


async def labels(client: Client, at: Address) -> dict[str, str]:
    """Labels of a stored object."""
    stored = await client.get(at, Manifest)
    found: dict[str, str] = stored["metadata"].get("labels", {})
    return found


class ApplyContract:
    """Fields have owners."""

    async def test_an_apply_creates_what_is_missing(self, client: Client, namespace: str) -> None:
        """And a second one, unchanged, makes no version."""
        at = SECRETS.at("s", namespace=namespace)
        wanted = owned(labels={"a": "1"})
        made = await client.apply(at, wanted, Manifest, field_manager="one")
        again = await client.apply(at, wanted, Manifest, field_manager="one")
        assert made["metadata"]["labels"] == {"a": "1"}
        assert made["metadata"]["resourceVersion"] == again["metadata"]["resourceVersion"]

    async def test_an_apply_names_its_object(self, client: Client, namespace: str) -> None:
        """Where it is created, in the body too, not only in the URL."""
        nameless = {"apiVersion": "v1", "kind": "Secret", "metadata": {"labels": {"a": "1"}}}
        with pytest.raises(errors.BadRequestError, match="name must be provided"):
            await client.apply(
                SECRETS.at("s", namespace=namespace), nameless, Manifest, field_manager="one"
            )

    async def test_an_apply_names_its_manager(self, client: Client, namespace: str) -> None:
        """Nobody would know whose the fields are."""
        with pytest.raises(errors.InvalidError, match="is required for apply patch"):
            await client.apply(
                SECRETS.at("s", namespace=namespace), owned(), Manifest, field_manager=""
            )

    async def test_a_field_that_is_no_longer_applied_goes(
        self, client: Client, namespace: str
    ) -> None:
        """Only what nobody else owns."""
        at = SECRETS.at("s", namespace=namespace)
        await client.apply(at, owned(labels={"a": "1", "b": "2"}), Manifest, field_manager="one")
        await client.apply(at, owned(labels={"b": "2"}), Manifest, field_manager="two")
        await client.apply(at, owned(), Manifest, field_manager="one")
        assert await labels(client, at) == {"b": "2"}

    async def test_a_foreign_field_is_a_conflict_unless_forced(
        self, client: Client, namespace: str
    ) -> None:
        """The message names the other owner and the field; force takes it over."""
        at = SECRETS.at("s", namespace=namespace)
        await client.apply(at, owned(labels={"a": "1"}), Manifest, field_manager="one")
        wanted = owned(labels={"a": "2"})
        with pytest.raises(
            errors.ConflictError, match=r'conflict with "one".*\.metadata\.labels\.a'
        ):
            await client.apply(at, wanted, Manifest, field_manager="two")
        await client.apply(at, wanted, Manifest, field_manager="two", force=True)
        assert await labels(client, at) == {"a": "2"}
        await client.apply(at, owned(), Manifest, field_manager="one")
        assert await labels(client, at) == {"a": "2"}

    async def test_an_empty_map_claims_no_key(self, client: Client, namespace: str) -> None:
        """Applying no labels at all beside another's labels is no conflict."""
        at = SECRETS.at("s", namespace=namespace)
        await client.apply(at, owned(labels={"a": "1"}), Manifest, field_manager="one")
        await client.apply(at, owned(labels={}), Manifest, field_manager="two")
        await client.apply(at, owned(labels={}), Manifest, field_manager="two")
        assert await labels(client, at) == {"a": "1"}

    async def test_the_same_value_may_have_two_owners(
        self, client: Client, namespace: str
    ) -> None:
        """Agreement is no conflict; the field goes with its last owner."""
        at = SECRETS.at("s", namespace=namespace)
        wanted = owned(labels={"a": "1"})
        for manager in ("one", "two"):
            await client.apply(at, wanted, Manifest, field_manager=manager)
        await client.apply(at, owned(), Manifest, field_manager="one")
        assert await labels(client, at) == {"a": "1"}
        await client.apply(at, owned(), Manifest, field_manager="two")
        assert await labels(client, at) == {}

    async def test_other_writes_own_too(self, client: Client, namespace: str) -> None:
        """A patch takes the field from its owner, and the next apply meets a conflict."""
        at = SECRETS.at("s", namespace=namespace)
        await client.apply(at, owned(labels={"a": "1"}), Manifest, field_manager="one")
        change = {"metadata": {"labels": {"a": "2"}}}
        options = WriteOptions(field_manager="hand")
        await client.patch(at, PatchKind.MERGE, change, Manifest, options)
        with pytest.raises(errors.ConflictError, match='conflict with "hand"'):
            await client.apply(at, owned(labels={"a": "1"}), Manifest, field_manager="one")

    async def test_an_update_that_created_the_object_owns_its_fields(
        self, client: Client, namespace: str
    ) -> None:
        """What was created with labels cannot silently be applied over."""
        at = SECRETS.at("s", namespace=namespace)
        await client.create(
            SECRETS.at(namespace=namespace), secret("s", labels={"a": "1"}), Manifest
        )
        with pytest.raises(errors.ConflictError, match='conflict with "gpu-fraction-contract"'):
            await client.apply(at, owned(labels={"a": "2"}), Manifest, field_manager="one")

    async def test_one_field_of_one_webhook_can_be_owned(
        self, client: Client, namespace: str
    ) -> None:
        """The bundle of a webhook, found by its name, next to fields of the installer."""
        name = f"contract-{namespace}"
        at = VALIDATING_WEBHOOKS.at(name)
        kinds = {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingWebhookConfiguration",
        }
        hooks = [
            {
                "name": f"{letter}.example.test",
                "clientConfig": {"url": "https://127.0.0.1:1/"},
                "sideEffects": "None",
                "admissionReviewVersions": ["v1"],
                "failurePolicy": "Ignore",
                "rules": [],
            }
            for letter in "ab"
        ]
        await client.create(
            VALIDATING_WEBHOOKS.at(),
            {**kinds, "metadata": {"name": name}, "webhooks": hooks},
            Manifest,
        )
        try:
            bundle = {"name": "b.example.test", "clientConfig": {"caBundle": "QUJD"}}
            wanted = {**kinds, "metadata": {"name": name}, "webhooks": [bundle]}
            told = await client.apply(at, wanted, Manifest, field_manager="certs")
            assert [hook["name"] for hook in told["webhooks"]] == [
                "a.example.test",
                "b.example.test",
            ]
            assert told["webhooks"][1]["clientConfig"] == {
                "url": "https://127.0.0.1:1/",
                "caBundle": "QUJD",
            }
            assert told["webhooks"][1]["failurePolicy"] == "Ignore"
            assert "caBundle" not in told["webhooks"][0]["clientConfig"]
        finally:
            await client.delete(at)

    async def test_conditions_of_two_controllers_live_side_by_side(
        self, client: Client, namespace: str, widgets: Resource
    ) -> None:
        """A list keyed by type is owned item by item, also in the status subresource."""
        at = widgets.at("w", namespace=namespace)
        await client.create(
            widgets.at(namespace=namespace), widget(widgets, "w", spec={}), Manifest
        )
        for kind in ("Ready", "Sick"):
            wanted = widget(
                widgets, "w", status={"conditions": [{"type": kind, "status": "True"}]}
            )
            told = await client.apply(
                at.sub("status"), wanted, Manifest, field_manager=kind.lower()
            )
        assert [c["type"] for c in told["status"]["conditions"]] == ["Ready", "Sick"]
        nothing = widget(widgets, "w", status={"conditions": []})
        told = await client.apply(at.sub("status"), nothing, Manifest, field_manager="ready")
        assert [c["type"] for c in told["status"]["conditions"]] == ["Sick"]

    async def test_a_stranger_cannot_apply_a_status_that_is_not_there(
        self, client: Client, namespace: str, widgets: Resource
    ) -> None:
        """Apply to a subresource creates nothing."""
        at = widgets.at("absent", namespace=namespace, subresource="status")
        wanted = widget(widgets, "absent", status={"used": 1})
        with pytest.raises(errors.NotFoundError):
            await client.apply(at, wanted, Manifest, field_manager="one")

    async def test_annotations_of_a_node_can_be_owned(
        self, client: Client, namespace: str
    ) -> None:
        """As the node daemon publishes its inventory."""
        name = f"n-{namespace}"
        await client.create(NODES.at(), node(name), Manifest)
        try:
            wanted = {**node(name), "metadata": {"name": name, "annotations": {"a": "1"}}}
            told = await client.apply(NODES.at(name), wanted, Manifest, field_manager="daemon")
            assert told["metadata"]["annotations"]["a"] == "1"
        finally:
            await client.delete(NODES.at(name))
