"""The project's own API server keeps the contract."""

from collections.abc import AsyncIterator

import pytest

from gpu_fraction.kube.access import Access
from gpu_fraction.kube.client import Client
from gpu_fraction.sandbox.apiserver import ApiServer
from tests.contract.admission import AdmissionContract
from tests.contract.applying import ApplyContract
from tests.contract.components import ComponentsContract
from tests.contract.conftest import PrepareNamespace
from tests.contract.pods import PodContract
from tests.contract.reading import ListContract
from tests.contract.watching import ForgetVersions, WatchContract
from tests.contract.writing import WritingContract


@pytest.fixture
async def server() -> AsyncIterator[ApiServer]:
    """A sandbox server."""
    async with ApiServer().serve() as server:
        yield server


@pytest.fixture
def access(server: ApiServer) -> Access:
    """Everyone may come in."""
    return Access(server=server.url)


@pytest.fixture
def prepare_namespace() -> PrepareNamespace:
    """A namespace is ready at once."""

    async def prepare(client: Client, namespace: str) -> None:
        pass

    return prepare


@pytest.fixture
def forget_versions(server: ApiServer) -> ForgetVersions:
    """Compact the history."""

    async def forget() -> None:
        server.storage.compact()

    return forget


class TestWriting(WritingContract):
    """Writes."""


class TestPods(PodContract):
    """Pods."""


class TestLists(ListContract):
    """Lists."""


class TestWatches(WatchContract):
    """Watches."""


class TestApply(ApplyContract):
    """Server-side apply."""


class TestComponents(ComponentsContract):
    """Election, events, reflector."""


class TestAdmission(AdmissionContract):
    """Webhooks."""
