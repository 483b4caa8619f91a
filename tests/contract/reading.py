"""The contract of reads: lists, pages, selectors."""

import asyncio

import msgspec
import pytest

from gpu_fraction.kube import errors, requests
from gpu_fraction.kube.client import Client
from gpu_fraction.kube.objects import Identity, Page, decode
from gpu_fraction.kube.requests import Request, Selection
from gpu_fraction.kube.resources import PODS, SECRETS, Resource
from tests.builders.pods import plain_pod
from tests.contract.manifests import Manifest, secret, widget


def names(objects: list[Manifest]) -> list[str]:
    """Their names."""
    return [obj["metadata"]["name"] for obj in objects]


class ListContract:
    """Lists and their pages."""

    async def test_a_list_has_a_version_and_bare_items(
        self, client: Client, namespace: str, widgets: Resource
    ) -> None:
        """Items of built-in kinds do not name their kind, custom ones do."""
        await client.create(SECRETS.at(namespace=namespace), secret("s"), Identity)
        await client.create(
            widgets.at(namespace=namespace), widget(widgets, "w", spec={}), Identity
        )
        for resource, kinds in ((SECRETS, [None]), (widgets, ["Widget"])):
            request = requests.list_page(
                resource.at(namespace=namespace), Selection(fields="metadata.name!=default")
            )
            listing: Manifest = msgspec.json.decode(await client.send(request))
            own = [item for item in listing["items"] if item["metadata"]["name"] in {"s", "w"}]
            assert [item.get("kind") for item in own] == kinds
            assert listing["kind"] == f"{resource.kind}List"
            assert listing["metadata"]["resourceVersion"].isdecimal()

    async def test_pages_show_one_moment(self, client: Client, namespace: str) -> None:
        """What is created between two pages is not in the second."""
        collection = SECRETS.at(namespace=namespace)
        for number in range(5):
            labels = {"page": "me"}
            await client.create(collection, secret(f"s{number}", labels=labels), Identity)
        selection = Selection(labels="page=me")
        first: Manifest = msgspec.json.decode(
            await client.send(requests.list_page(collection, selection, limit=2))
        )
        await client.create(collection, secret("s1a", labels={"page": "me"}), Identity)
        await client.delete(SECRETS.at("s4", namespace=namespace))
        token = first["metadata"]["continue"]
        rest: Manifest = msgspec.json.decode(
            await client.send(requests.list_page(collection, selection, continuation=token))
        )
        assert names(first["items"]) == ["s0", "s1"]
        assert names(rest["items"]) == ["s2", "s3", "s4"]
        assert rest["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
        assert not rest["metadata"].get("continue")

    async def test_a_whole_list_is_read_through_its_pages(
        self, client: Client, namespace: str
    ) -> None:
        """The client's own paging finds everything once."""
        collection = SECRETS.at(namespace=namespace)
        for number in range(7):
            await client.create(collection, secret(f"s{number}"), Identity)
        listing = await client.list(collection, Manifest, page_size=3)
        assert [n for n in names(listing.items) if n.startswith("s")] == [
            f"s{n}" for n in range(7)
        ]

    async def test_label_selectors(self, client: Client, namespace: str) -> None:
        """Equality, sets and presence; a missing label differs from every value."""
        collection = PODS.at(namespace=namespace)
        for name, labels in (("a", {"x": "1"}), ("b", {"x": "2", "y": ""}), ("c", {})):
            await client.create(collection, plain_pod(name, labels=labels), Identity)
        for selector, expected in (
            ("x=1", ["a"]),
            ("x==1", ["a"]),
            ("x!=1", ["b", "c"]),
            ("x in (1,2)", ["a", "b"]),
            ("x notin (1)", ["b", "c"]),
            ("x", ["a", "b"]),
            ("!x", ["c"]),
            ("x,y", ["b"]),
            ("x in (1, 2),!y", ["a"]),
        ):
            listing = await client.list(collection, Manifest, Selection(labels=selector))
            assert (selector, names(listing.items)) == (selector, expected)
        with pytest.raises(errors.BadRequestError):
            await client.list(collection, Manifest, Selection(labels="x in (1"))

    async def test_field_selectors(self, client: Client, namespace: str) -> None:
        """Pods by node, phase and name; other fields are refused."""
        collection = PODS.at(namespace=namespace)
        await client.create(collection, plain_pod("a", node="n1"), Identity)
        await client.create(collection, plain_pod("b"), Identity)
        for selector, expected in (
            ("spec.nodeName=n1", ["a"]),
            ("spec.nodeName=", ["b"]),
            ("spec.nodeName!=n1", ["b"]),
            ("metadata.name=b", ["b"]),
            ("status.phase=Pending,spec.nodeName=n1", ["a"]),
            ("status.phase=Running", []),
            ("spec.hostNetwork=false", ["a", "b"]),
            ("spec.hostNetwork=true", []),
            ("status.nominatedNodeName=", ["a", "b"]),
        ):
            listing = await client.list(collection, Manifest, Selection(fields=selector))
            assert (selector, names(listing.items)) == (selector, expected)
        with pytest.raises(errors.BadRequestError, match="field label not supported"):
            await client.list(collection, Manifest, Selection(fields="spec.priority=0"))

    async def test_a_definition_names_the_fields_that_select(
        self, client: Client, namespace: str, widgets: Resource
    ) -> None:
        """Objects without the field count as empty; other fields are refused."""
        collection = widgets.at(namespace=namespace)
        for name, spec in (("a", {"color": "red"}), ("b", {"color": "blue"}), ("c", {})):
            await client.create(collection, widget(widgets, name, spec=spec), Identity)
        for selector, expected in (
            ("spec.color=red", ["a"]),
            ("spec.color!=red", ["b", "c"]),
            ("spec.color=", ["c"]),
            ("spec.color=blue,metadata.name=b", ["b"]),
        ):
            listing = await client.list(collection, Manifest, Selection(fields=selector))
            assert (selector, names(listing.items)) == (selector, expected)
        with pytest.raises(errors.BadRequestError, match="field label not supported"):
            await client.list(collection, Manifest, Selection(fields="spec.size=1"))

    async def test_a_list_from_the_cache_ends(self, client: Client, namespace: str) -> None:
        """Version 0 may be old but not forever, and comes with a version to watch from."""
        collection = SECRETS.at(namespace=namespace)
        await client.create(collection, secret("s"), Identity)
        async with asyncio.timeout(10):
            while True:
                request = Request(
                    "list", "GET", collection, (("limit", "1"), ("resourceVersion", "0"))
                )
                listing = decode(Page[Manifest], await client.send(request))
                if "s" in names(listing.items or []):
                    break
                await asyncio.sleep(0.05)
        assert listing.metadata.resource_version.isdecimal()

    async def test_resources_that_are_not_there(self, client: Client, namespace: str) -> None:
        """An unknown resource is not found, and so is an unknown subresource."""
        absent = Resource("absent.example.test", "v1", "things", "Thing")
        with pytest.raises(errors.NotFoundError):
            await client.list(absent.at(), Manifest)
        await client.create(SECRETS.at(namespace=namespace), secret("s"), Identity)
        with pytest.raises(errors.NotFoundError):
            await client.get(SECRETS.at("s", namespace=namespace, subresource="status"), Manifest)
