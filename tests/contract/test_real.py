"""Kubernetes' own API server keeps the contract, or the contract is wrong.

Runs against the cluster that ``KUBECONFIG_TEST`` names; objects are made in namespaces and
under names of the test's own.
"""

import asyncio
import os

import pytest

from gpu_fraction.kube import errors
from gpu_fraction.kube.access import Access, kubeconfig
from gpu_fraction.kube.client import Client
from gpu_fraction.kube.objects import Identity
from gpu_fraction.kube.resources import Resource
from tests.contract.admission import AdmissionContract
from tests.contract.applying import ApplyContract
from tests.contract.components import ComponentsContract
from tests.contract.conftest import PrepareNamespace
from tests.contract.pods import PodContract
from tests.contract.reading import ListContract
from tests.contract.watching import ForgetVersions, WatchContract
from tests.contract.writing import WritingContract

KUBECONFIG = os.environ.get("KUBECONFIG_TEST", "")
SERVICE_ACCOUNTS = Resource("", "v1", "serviceaccounts", "ServiceAccount")

pytestmark = pytest.mark.skipif(
    not KUBECONFIG, reason="KUBECONFIG_TEST names no cluster to compare with"
)


@pytest.fixture
async def access() -> Access:
    """The administrator of the named cluster."""
    return await kubeconfig(KUBECONFIG).find()


@pytest.fixture
def prepare_namespace() -> PrepareNamespace:
    """Pods are refused before the controller has made the namespace's service account."""

    async def prepare(client: Client, namespace: str) -> None:
        async with asyncio.timeout(20):
            while True:
                try:
                    at = SERVICE_ACCOUNTS.at("default", namespace=namespace)
                    await client.get(at, Identity)
                except errors.NotFoundError:
                    await asyncio.sleep(0.05)
                else:
                    return

    return prepare


@pytest.fixture
def forget_versions() -> ForgetVersions:
    """A real server's watch cache began after version 1."""

    async def forget() -> None:
        pass

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
