"""What the contract needs of any server: a client, a namespace, a custom resource.

A module of contract tests provides the fixtures ``access`` (where the server is),
``prepare_namespace`` (waits until pods can be created in a namespace) and
``forget_versions`` (makes version 1 too old to watch from).
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from gpu_fraction.kube import errors
from gpu_fraction.kube.access import Access
from gpu_fraction.kube.client import Client, connect
from gpu_fraction.kube.objects import Identity
from gpu_fraction.kube.resources import CRDS, NAMESPACES, Resource
from tests.contract.manifests import Manifest, widget_definition
from tests.support.access import fixed

# These modules hold the tests; the ones that collect them only say against which server.
for module in ("admission", "applying", "components", "pods", "reading", "watching", "writing"):
    pytest.register_assert_rewrite(f"tests.contract.{module}")

PrepareNamespace = Callable[[Client, str], Awaitable[None]]


@pytest.fixture
async def client(access: Access) -> AsyncIterator[Client]:
    """A client with full rights."""
    async with connect(fixed(access), component="contract") as client:
        yield client


@pytest.fixture
async def namespace(client: Client, prepare_namespace: PrepareNamespace) -> AsyncIterator[str]:
    """A namespace of the test's own, in which pods can be created."""
    name = f"contract-{secrets.token_hex(4)}"
    manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    await client.create(NAMESPACES.at(), manifest, Identity)
    await prepare_namespace(client, name)
    yield name
    await client.delete(NAMESPACES.at(name))


@pytest.fixture
async def widgets(client: Client) -> AsyncIterator[Resource]:
    """A custom resource of the test's own, with a status subresource and a keyed list."""
    group = f"c{secrets.token_hex(4)}.example.test"
    widget = Resource(group, "v1", "widgets", "Widget")
    crd = await client.create(CRDS.at(), widget_definition(group), Manifest)
    async with asyncio.timeout(20):
        while True:
            try:
                await client.list(widget.at(), Identity)
            except errors.NotFoundError:
                await asyncio.sleep(0.1)
            else:
                break
    yield widget
    await client.delete(CRDS.at(crd["metadata"]["name"]))
