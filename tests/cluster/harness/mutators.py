"""Other people's mutations beside ours: a webhook and a MutatingAdmissionPolicy."""

import asyncio
import base64
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Callable

from aiohttp import web

from tests.builders.pods import Raw
from tests.cluster.harness.api_client import ApiClient
from tests.cluster.harness.control_plane import ControlPlane

API = "/apis/admissionregistration.k8s.io/v1"
POD_CREATION: Raw = {
    "apiGroups": [""],
    "apiVersions": ["v1"],
    "operations": ["CREATE"],
    "resources": ["pods"],
}
Patch = list[Raw]
Change = Callable[[Raw], Patch]
"""From a pod to the JSON patch that another webhook answers."""


@contextlib.asynccontextmanager
async def webhook(
    plane: ControlPlane,
    client: ApiClient,
    name: str,
    namespace: str,
    change: Change,
    again: str = "Never",
) -> AsyncIterator[None]:
    """Another mutating webhook, called in one namespace in the order of its name.

    Args:
        plane: the cluster.
        client: its administrator.
        name: of the configuration.
        namespace: where it is called.
        change: its answer.
        again: its ``reinvocationPolicy``.
    """

    async def answer(request: web.Request) -> web.Response:
        review = await request.json()
        response = {"uid": review["request"]["uid"], "allowed": True}
        if patch := change(review["request"]["object"]):
            response["patchType"] = "JSONPatch"
            response["patch"] = base64.b64encode(json.dumps(patch).encode()).decode()
        kind = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}
        return web.json_response({**kind, "response": response})

    certificate, key = plane.authority.issue(name, name, hosts=["127.0.0.1"])
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    app = web.Application()
    app.router.add_post("/", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    port = runner.addresses[0][1]
    configuration = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": name},
        "webhooks": [
            {
                "name": f"{name}.example.com",
                "admissionReviewVersions": ["v1"],
                "clientConfig": {
                    "url": f"https://127.0.0.1:{port}/",
                    "caBundle": plane.authority.bundle,
                },
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
                "rules": [POD_CREATION],
                "sideEffects": "None",
                "failurePolicy": "Fail",
                "reinvocationPolicy": again,
            }
        ],
    }
    path = f"{API}/mutatingwebhookconfigurations"
    await client.create(path, configuration)
    try:
        yield
    finally:
        await client.delete(f"{path}/{name}")
        await runner.cleanup()
        await asyncio.sleep(0.1)  # TLS connections that were closed let go of their sockets


@contextlib.asynccontextmanager
async def policy(client: ApiClient, namespace: str, mutation: Raw) -> AsyncIterator[None]:
    """A MutatingAdmissionPolicy that is bound to one namespace, called again where needed."""
    where = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}
    head = {"apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": namespace}}
    made = {
        "mutatingadmissionpolicies": {
            **head,
            "kind": "MutatingAdmissionPolicy",
            "spec": {
                "matchConstraints": {"resourceRules": [POD_CREATION]},
                "failurePolicy": "Fail",
                "reinvocationPolicy": "IfNeeded",
                "mutations": [mutation],
            },
        },
        "mutatingadmissionpolicybindings": {
            **head,
            "kind": "MutatingAdmissionPolicyBinding",
            "spec": {"policyName": namespace, "matchResources": where},
        },
    }
    for kind, manifest in made.items():
        await client.create(f"{API}/{kind}", manifest)
    try:
        yield
    finally:
        for kind in made:
            await client.delete(f"{API}/{kind}/{namespace}")
