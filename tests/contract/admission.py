"""The contract of admission: what webhooks are sent, and what their answers do."""

import base64
import copy
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trustme
from aiohttp import web

from gpu_fraction.kube import errors
from gpu_fraction.kube.client import Client
from gpu_fraction.kube.objects import Identity
from gpu_fraction.kube.requests import PatchKind, WriteOptions
from gpu_fraction.kube.resources import (
    MUTATING_WEBHOOKS,
    NAMESPACES,
    PODS,
    VALIDATING_WEBHOOKS,
    Resource,
)
from tests.builders.pods import plain_pod
from tests.contract.manifests import Manifest, to_node

LABEL = "contract.example.test/run"
ALLOW: Manifest = {"allowed": True}


def patch(*operations: Manifest) -> Manifest:
    """An answer that patches."""
    encoded = base64.b64encode(json.dumps(operations).encode()).decode()
    return {"allowed": True, "patchType": "JSONPatch", "patch": encoded}


def deny(message: str, code: int = 403, reason: str = "Forbidden") -> Manifest:
    """An answer that refuses."""
    status = {"message": message, "code": code, "reason": reason}
    return {"allowed": False, "status": status}


class Webhook:
    """A webhook server that answers as told and remembers what it was asked."""

    def __init__(self, authority: trustme.CA, *, name: str = "127.0.0.1") -> None:
        self.reviews: list[Manifest] = []
        self.queries: list[str] = []
        self.answers: list[Manifest | web.Response] = []
        self.ca_bundle = base64.b64encode(authority.cert_pem.bytes()).decode()
        self.url = ""
        self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert(name).configure_cert(self._tls)

    @asynccontextmanager
    async def serve(self) -> AsyncIterator["Webhook"]:
        """Listen on loopback."""
        app = web.Application()
        app.router.add_post("/", self._answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.05)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=self._tls)
            await site.start()
            self.url = f"https://127.0.0.1:{runner.addresses[0][1]}/"
            yield self
        finally:
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        body = await request.json()
        review: Manifest = body["request"]
        self.reviews.append(review)
        self.queries.append(request.query_string)
        answer = self.answers.pop(0) if self.answers else ALLOW
        if isinstance(answer, web.Response):
            return answer
        return web.json_response({**body, "response": {"uid": review["uid"], **answer}})


Register = Callable[..., Any]


async def until_asked(client: Client, namespace: str, webhook: Webhook) -> None:
    """A configuration takes effect a moment after it was stored, and nobody says when."""
    probe = WriteOptions(dry_run=True)
    before = len(webhook.reviews)
    kept, webhook.answers = webhook.answers, []
    while len(webhook.reviews) == before:
        await client.create(PODS.at(namespace=namespace), plain_pod("probe"), Identity, probe)
    webhook.reviews.clear()
    webhook.queries.clear()
    webhook.answers = kept


class AdmissionContract:
    """Webhooks."""

    @pytest.fixture
    def authority(self) -> trustme.CA:
        """Signs the webhook's certificate."""
        return trustme.CA()

    @pytest.fixture
    async def webhook(self, authority: trustme.CA) -> AsyncIterator[Webhook]:
        """A webhook that allows everything unless told otherwise."""
        async with Webhook(authority).serve() as webhook:
            yield webhook

    @pytest.fixture
    async def register(
        self, client: Client, namespace: str, webhook: Webhook
    ) -> AsyncIterator[Register]:
        """Registers the webhook for pods of the test's namespace, and waits until it is asked."""
        made: list[tuple[Resource, str]] = []
        label = {"metadata": {"labels": {LABEL: namespace}}}
        await client.patch(NAMESPACES.at(namespace), PatchKind.MERGE, label, Identity)

        async def register(resource: Resource, **fields: Any) -> None:
            name = f"contract-{namespace}-{len(made)}"
            hook = {
                "name": "v.example.test",
                "clientConfig": {"url": webhook.url, "caBundle": webhook.ca_bundle},
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
                "timeoutSeconds": 5,
                "namespaceSelector": {"matchLabels": {LABEL: namespace}},
                "rules": [
                    {
                        "apiGroups": [""],
                        "apiVersions": ["v1"],
                        "operations": ["CREATE", "UPDATE", "DELETE"],
                        "resources": ["pods", "pods/binding"],
                    }
                ],
                **fields,
            }
            manifest = {
                "apiVersion": resource.api_version,
                "kind": resource.kind,
                "metadata": {"name": name},
                "webhooks": [hook],
            }
            await client.create(resource.at(), manifest, Identity)
            made.append((resource, name))
            await until_asked(client, namespace, webhook)

        yield register
        for resource, name in made:
            await client.delete(resource.at(name))

    async def test_a_mutating_webhook_sees_no_identity_and_changes_the_object(
        self, client: Client, namespace: str, webhook: Webhook, register: Register
    ) -> None:
        """Name, uid and time come later; the patch is in what is stored."""
        await register(MUTATING_WEBHOOKS)
        webhook.answers = [
            patch({"op": "add", "path": "/metadata/annotations", "value": {"a": "1"}})
        ]
        manifest = plain_pod("x")
        manifest["metadata"] = {"generateName": "gen-"}
        made = await client.create(PODS.at(namespace=namespace), manifest, Manifest)
        assert made["metadata"]["annotations"] == {"a": "1"}
        [review] = webhook.reviews
        assert "name" not in review
        metadata = review["object"]["metadata"]
        assert not any(metadata.get(key) for key in ("name", "uid", "creationTimestamp"))
        assert metadata["namespace"] == review["namespace"] == namespace
        assert (review["operation"], review["dryRun"], review["oldObject"]) == (
            "CREATE",
            False,
            None,
        )
        assert review["resource"] == {"group": "", "version": "v1", "resource": "pods"}
        assert review["kind"] == {"group": "", "version": "v1", "kind": "Pod"}
        assert webhook.queries == ["timeout=5s"]

    async def test_a_validating_webhook_sees_the_final_object(
        self, client: Client, namespace: str, webhook: Webhook, register: Register
    ) -> None:
        """With the name and uid under which it will be stored."""
        await register(VALIDATING_WEBHOOKS)
        manifest = plain_pod("x")
        manifest["metadata"] = {"generateName": "gen-"}
        made = await client.create(PODS.at(namespace=namespace), manifest, Manifest)
        [review] = webhook.reviews
        assert review["object"]["metadata"]["uid"] == made["metadata"]["uid"]
        assert review["object"]["metadata"]["name"] == made["metadata"]["name"]
        assert review["object"]["status"]["phase"] == "Pending"

    async def test_a_refusal_is_told_word_for_word(
        self, client: Client, namespace: str, webhook: Webhook, register: Register
    ) -> None:
        """With the webhook's name before it, and its code; nothing is stored."""
        await register(VALIDATING_WEBHOOKS)
        webhook.answers = [deny("exceeded GPU quota: q, requested: gpus=1")]
        with pytest.raises(errors.ForbiddenError) as caught:
            await client.create(PODS.at(namespace=namespace), plain_pod("p"), Identity)
        assert str(caught.value) == (
            'admission webhook "v.example.test" denied the request:'
            " exceeded GPU quota: q, requested: gpus=1"
        )
        with pytest.raises(errors.NotFoundError):
            await client.get(PODS.at("p", namespace=namespace), Identity)

    async def test_a_dry_run_is_announced(
        self, client: Client, namespace: str, webhook: Webhook, register: Register
    ) -> None:
        """So that the webhook writes nothing either."""
        await register(VALIDATING_WEBHOOKS)
        dry = WriteOptions(dry_run=True)
        await client.create(PODS.at(namespace=namespace), plain_pod("p"), Identity, dry)
        assert [review["dryRun"] for review in webhook.reviews] == [True]

    async def test_updates_and_deletions_show_the_old_object(
        self, client: Client, namespace: str, webhook: Webhook, register: Register
    ) -> None:
        """An update has both, a deletion only the old one."""
        at = PODS.at("p", namespace=namespace)
        await client.create(PODS.at(namespace=namespace), plain_pod("p"), Identity)
        await register(VALIDATING_WEBHOOKS)
        change = {"metadata": {"labels": {"a": "1"}}}
        await client.patch(at, PatchKind.MERGE, change, Identity)
        await client.delete(at)
        update, *deletions = webhook.reviews
        assert update["operation"] == "UPDATE"
        assert update["object"]["metadata"]["labels"] == {"a": "1"}
        assert "labels" not in update["oldObject"]["metadata"]
        assert {review["operation"] for review in deletions} == {"DELETE"}
        assert deletions[0]["object"] is None
        assert deletions[0]["oldObject"]["metadata"]["name"] == "p"

    async def test_a_binding_is_reviewed_as_a_creation(
        self, client: Client, namespace: str, webhook: Webhook, register: Register
    ) -> None:
        """Of the subresource, with the Binding as its object."""
        at = PODS.at("p", namespace=namespace)
        await client.create(PODS.at(namespace=namespace), plain_pod("p"), Identity)
        await register(VALIDATING_WEBHOOKS)
        await client.create(at.sub("binding"), to_node("n1", "p"), Manifest)
        [review] = webhook.reviews
        assert (review["operation"], review["subResource"]) == ("CREATE", "binding")
        assert review["kind"]["kind"] == review["object"]["kind"] == "Binding"
        assert review["object"]["target"]["name"] == "n1"

    async def test_an_answer_with_retry_after_is_asked_for_again(
        self, client: Client, namespace: str, webhook: Webhook, register: Register
    ) -> None:
        """The same review, with the same uid, until it succeeds."""
        await register(VALIDATING_WEBHOOKS)
        webhook.answers = [
            web.Response(status=503, headers={"Retry-After": "0"}),
            web.Response(status=429, headers={"Retry-After": "0"}),
        ]
        await client.create(PODS.at(namespace=namespace), plain_pod("p"), Identity)
        assert len(webhook.reviews) == 3
        assert len({review["uid"] for review in webhook.reviews}) == 1

    @pytest.mark.parametrize("policy", ["Fail", "Ignore"])
    async def test_the_failure_policy_decides_on_a_broken_webhook(
        self,
        client: Client,
        namespace: str,
        webhook: Webhook,
        register: Register,
        policy: str,
    ) -> None:
        """500 without Retry-After, and an answer with another uid."""
        await register(VALIDATING_WEBHOOKS, failurePolicy=policy)
        for number, answer in enumerate((web.Response(status=500), {**ALLOW, "uid": "other"})):
            webhook.answers = [copy.copy(answer)]
            creation = client.create(
                PODS.at(namespace=namespace), plain_pod(f"p{number}"), Identity
            )
            if policy == "Ignore":
                assert (await creation).metadata.name == f"p{number}"
                continue
            with pytest.raises(errors.ServerFaultError, match=r'webhook "v\.example\.test"'):
                await creation

    async def test_a_patch_that_does_not_fit_fails_whatever_the_policy(
        self, client: Client, namespace: str, webhook: Webhook, register: Register
    ) -> None:
        """It is applied after the call, so Ignore does not save the request."""
        await register(MUTATING_WEBHOOKS, failurePolicy="Ignore")
        webhook.answers = [patch({"op": "add", "path": "/metadata/none/a", "value": "1"})]
        with pytest.raises(errors.ServerFaultError):
            await client.create(PODS.at(namespace=namespace), plain_pod("p"), Identity)

    async def test_selectors_and_rules_bound_what_is_asked(
        self, client: Client, namespace: str, webhook: Webhook, register: Register
    ) -> None:
        """Objects without the label and other operations do not reach the webhook."""
        rule = {
            "apiGroups": ["*"],
            "apiVersions": ["*"],
            "operations": ["CREATE"],
            "resources": ["pods"],
        }
        await register(VALIDATING_WEBHOOKS, rules=[rule])
        at = PODS.at("p", namespace=namespace)
        await client.create(PODS.at(namespace=namespace), plain_pod("p"), Identity)
        await client.patch(at, PatchKind.MERGE, {"metadata": {"labels": {"a": "1"}}}, Identity)
        await client.create(at.sub("binding"), to_node("n1", "p"), Manifest)
        assert [review["operation"] for review in webhook.reviews] == ["CREATE"]
