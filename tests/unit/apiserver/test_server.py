"""The server as its users see it: faults, tokens, namespaces, CRDs, a process of its own."""

import asyncio
import json
import signal
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme

from gpu_fraction.kube import errors
from gpu_fraction.kube.access import Access, kubeconfig
from gpu_fraction.kube.client import Client, connect
from gpu_fraction.kube.objects import Identity
from gpu_fraction.kube.requests import PatchKind
from gpu_fraction.kube.resources import (
    CRDS,
    MUTATING_WEBHOOKS,
    NAMESPACES,
    PODS,
    SECRETS,
    Resource,
)
from gpu_fraction.sandbox.apiserver import Answer, ApiServer, Fault, Hang, Slow
from gpu_fraction.sandbox.apiserver.faults import Call, Faults
from tests.builders.pods import plain_pod
from tests.cluster.harness.binaries import find_binaries
from tests.contract.admission import Webhook, patch
from tests.contract.manifests import Manifest, secret, widget, widget_definition
from tests.support.access import fixed


@pytest.fixture
async def api() -> AsyncIterator[ApiServer]:
    """A server."""
    async with ApiServer().serve() as api:
        yield api


@pytest.fixture
async def client(api: ApiServer) -> AsyncIterator[Client]:
    """A client of it."""
    async with connect(fixed(Access(server=api.url)), component="test") as client:
        yield client


def test_rules_let_pass_then_spoil_then_are_used_up() -> None:
    """The first rule that matches and has something left decides."""
    faults = Faults()
    faults.add(Fault(Hang(), verb="list", skip=1, times=2))
    faults.add(Fault(Answer(503), resource="pods", subresource="-", times=None))
    pods, nodes = Call("list", "pods"), Call("list", "nodes")
    assert faults.strike(nodes) is None
    assert faults.strike(pods) == Hang()
    assert faults.strike(nodes) == Hang()
    assert faults.strike(nodes) is None
    assert faults.strike(pods) == Answer(503)
    assert faults.strike(Call("update", "pods", "status")) is None
    faults.clear()
    assert faults.strike(pods) is None


async def test_unknown_tokens_are_turned_away() -> None:
    """And known ones are told apart in admission reviews."""
    api = ApiServer(tokens={"t": "system:serviceaccount:a:b"})
    async with api.serve():
        for token, ok in (("t", True), ("u", False)):
            access = Access(server=api.url, authorization=f"Bearer {token}")
            async with connect(fixed(access), component="test") as client:
                if ok:
                    await client.get(NAMESPACES.at("default"), Identity)
                    continue
                with pytest.raises(errors.UnauthorizedError):
                    await client.get(NAMESPACES.at("default"), Identity)


async def test_a_namespace_goes_with_what_is_in_it(api: ApiServer, client: Client) -> None:
    """There is no controller, so the server does it at once."""
    api.add_namespace("gone")
    await client.create(SECRETS.at(namespace="gone"), secret("s"), Identity)
    running = plain_pod("p", node="n1", namespace="gone")
    await client.create(PODS.at(namespace="gone"), running, Identity)
    await client.delete(NAMESPACES.at("gone"))
    for resource in (SECRETS, PODS):
        assert (await client.list(resource.at(namespace="gone"), Identity)).items == []
    with pytest.raises(errors.NotFoundError):
        await client.create(SECRETS.at(namespace="gone"), secret("s"), Identity)


async def test_a_crd_adds_a_resource_and_takes_it_away(client: Client) -> None:
    """Its objects can be had as soon as it is stored."""
    things = Resource("x.example.test", "v1", "widgets", "Widget")
    with pytest.raises(errors.NotFoundError):
        await client.list(things.at(), Identity)
    await client.create(CRDS.at(), widget_definition("x.example.test"), Identity)
    assert (await client.list(things.at(), Identity)).items == []
    await client.delete(CRDS.at("widgets.x.example.test"))
    with pytest.raises(errors.NotFoundError):
        await client.list(things.at(), Identity)


async def test_a_body_larger_than_the_real_server_takes_is_refused(client: Client) -> None:
    """413 at 3 MiB."""
    huge = secret("s", annotations={"a": "x" * (3 * 2**20)})
    with pytest.raises(errors.BadRequestError) as caught:
        await client.create(SECRETS.at(namespace="default"), huge, Identity)
    assert caught.value.status == 413


async def test_what_it_cannot_read_is_told(api: ApiServer) -> None:
    """Protobuf, which kubectl's typed commands send, and a watch from no version at all."""
    async with aiohttp.ClientSession() as session:
        sent = await session.post(
            f"{api.url}/api/v1/namespaces",
            data=b"k8s\0",
            headers={"Content-Type": "application/vnd.kubernetes.protobuf"},
        )
        assert (sent.status, (await sent.json())["reason"]) == (415, "UnsupportedMediaType")
        query = {"watch": "true", "resourceVersion": "none"}
        assert (await session.get(f"{api.url}/api/v1/pods", params=query)).status == 400


async def test_objects_can_be_put_in_without_a_request(api: ApiServer, client: Client) -> None:
    """With their status; a kind that is not served is a mistake of the test."""
    api.add({**plain_pod("p", namespace="default"), "status": {"phase": "Running"}})
    stored = await client.get(PODS.at("p", namespace="default"), Manifest)
    assert stored["status"]["phase"] == "Running"
    with pytest.raises(ValueError, match="not served"):
        api.add({"apiVersion": "v2", "kind": "Pod", "metadata": {"name": "p"}})


async def test_concurrent_patches_are_all_carried_out(api: ApiServer, client: Client) -> None:
    """Patches that overtake each other are tried again inside, as the real server does."""
    api.add(secret("s", namespace="default"))
    api.faults.add(Fault(Slow(0.01), verb="patch", times=5))

    async def label(number: int) -> None:
        change = {"metadata": {"labels": {f"l{number}": "1"}}}
        await client.patch(SECRETS.at("s", namespace="default"), PatchKind.MERGE, change, Identity)

    await asyncio.gather(*(label(number) for number in range(20)))
    stored = await client.get(SECRETS.at("s", namespace="default"), Manifest)
    assert len(stored["metadata"]["labels"]) == 20


async def test_webhooks_behind_a_service(
    api: ApiServer, client: Client, service_webhook: Webhook
) -> None:
    """The Service's name is checked in the certificate; a second call sees later changes."""
    port = int(service_webhook.url.rsplit(":", 1)[1].strip("/"))
    api.admission.services["system", "hooks"] = ("127.0.0.1", port)
    rule: Manifest = {
        "apiGroups": [""],
        "apiVersions": ["v1"],
        "operations": ["CREATE"],
        "resources": ["pods"],
    }

    def hook(name: str, policy: str) -> Manifest:
        return {
            "name": name,
            "clientConfig": {
                "service": {"namespace": "system", "name": "hooks", "path": "/"},
                "caBundle": service_webhook.ca_bundle,
            },
            "rules": [rule],
            "reinvocationPolicy": policy,
        }

    api.add(
        {
            "apiVersion": MUTATING_WEBHOOKS.api_version,
            "kind": MUTATING_WEBHOOKS.kind,
            "metadata": {"name": "hooks"},
            "webhooks": [hook("a.example.test", "IfNeeded"), hook("b.example.test", "Never")],
        }
    )
    service_webhook.answers = [
        {"allowed": True},
        patch({"op": "add", "path": "/metadata/labels", "value": {"b": "1"}}),
    ]
    await client.create(PODS.at(namespace="default"), plain_pod("p"), Identity)
    labels = [review["object"]["metadata"].get("labels") for review in service_webhook.reviews]
    assert labels == [None, None, {"b": "1"}]


@pytest.fixture
def service_certificate() -> Any:
    """A CA, made outside of the event loop."""
    return trustme.CA()


@pytest.fixture
async def service_webhook(service_certificate: Any) -> AsyncIterator[Webhook]:
    """A webhook whose certificate names a Service."""
    webhook = Webhook(service_certificate, name="hooks.system.svc")
    async with webhook.serve():
        yield webhook


@pytest.fixture
def process(tmp_path: Path) -> Any:
    """The server as a process; its kubeconfig and URL."""
    path = tmp_path / "kubeconfig"
    command = [sys.executable, "-m", "gpu_fraction.sandbox.apiserver", "--kubeconfig", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield path, process.stdout.readline().strip(), process
        finally:
            process.kill()


async def test_the_process_takes_faults_over_http_and_ends_on_sigterm(process: Any) -> None:
    """For demonstrations and for tests of programs that run by themselves."""
    path, url, running = process
    async with (
        connect(kubeconfig(str(path)), component="test") as client,
        aiohttp.ClientSession() as session,
    ):
        rule = {"action": {"type": "Answer", "code": 418}, "verb": "get", "times": 1}
        await session.post(f"{url}/-/faults", json=rule)
        with pytest.raises(errors.BadRequestError):
            await client.get(NAMESPACES.at("default"), Identity)
        await client.get(NAMESPACES.at("default"), Identity)
        await session.post(f"{url}/-/faults", json={**rule, "times": None})
        await session.delete(f"{url}/-/faults")
        await client.get(NAMESPACES.at("default"), Identity)
        assert (await session.post(f"{url}/-/compact")).status == 200
        for wrong in ({}, {"action": {"type": "No"}}, {"action": {"type": "Hang"}, "no": 1}):
            assert (await session.post(f"{url}/-/faults", json=wrong)).status == 400
        assert (await session.post(f"{url}/-/none")).status == 404
    running.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(running.wait, 10) == 0


def test_kubectl_works_with_it(process: Any, tmp_path: Path) -> None:
    """Discovery, create, get, label, apply and delete, with kubectl's own defaults."""
    path, _, _ = process
    program = find_binaries().paths.get("kubectl")
    if program is None:
        pytest.skip("no kubectl on this machine: `make cluster-assets` builds it")

    def kubectl(*words: str, **kwargs: Any) -> str:
        command = [program, "--kubeconfig", path, "--cache-dir", tmp_path, *words]
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=30, **kwargs
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team-a"}}
    kubectl("create", "-f", "-", input=json.dumps(namespace))
    manifest = json.dumps(plain_pod("p", namespace="team-a"))
    for verb in (["create"], ["apply"], ["apply", "--server-side", "--force-conflicts"]):
        kubectl(*verb, "-f", "-", input=manifest)
    kubectl("label", "pod", "p", "-n", "team-a", "x=1")
    assert kubectl("get", "po", "-n", "team-a", "-l", "x=1", "-o", "name") == "pod/p\n"
    assert "team-a" in kubectl("get", "pods", "-A")
    kubectl("delete", "pod", "p", "-n", "team-a")
    assert kubectl("get", "pods", "-n", "team-a", "-o", "name") == ""
    things = Resource("x.example.test", "v1", "widgets", "Widget")
    for custom in (
        widget_definition("x.example.test"),
        widget(things, "w", spec={"color": "red"}),
    ):
        kubectl("apply", "-f", "-", input=json.dumps(custom))
    kubectl("wait", "widget", "w", "--for=jsonpath={.spec.color}=red", "--timeout=10s")
    assert "w " in kubectl("get", "widgets", "--field-selector", "spec.color=red")


async def test_tls(service_certificate: Any) -> None:
    """The server speaks TLS where it is given a context."""
    context = await asyncio.to_thread(_server_context, service_certificate)
    ca_pem = service_certificate.cert_pem.bytes().decode()
    async with ApiServer().serve(tls=context) as api:
        source = fixed(Access(server=api.url, ca_pem=ca_pem))
        async with connect(source, component="test") as client:
            assert await client.server_version() == (1, 37)


def _server_context(authority: Any) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context
