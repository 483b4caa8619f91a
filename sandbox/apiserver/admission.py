"""Calls the webhooks that mutating and validating webhook configurations register.

Follows the real server in what is sent, in what order, and in what an answer may be.
matchConditions are not evaluated (they are CEL): such a webhook sees every request that
its rules match. A Service is found through the addresses given to the constructor.
"""

import asyncio
import base64
import ssl
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import aiohttp
import msgspec

from gpu_fraction.kube import resources
from gpu_fraction.sandbox.apiserver.failures import ApiFailure
from gpu_fraction.sandbox.apiserver.kinds import Kind
from gpu_fraction.sandbox.apiserver.patches import json_patch
from gpu_fraction.sandbox.apiserver.routing import Target
from gpu_fraction.sandbox.apiserver.selectors import by_label_selector
from gpu_fraction.sandbox.apiserver.storage import Object, Storage

RETRIES: Final = 10
"""Source: client-go rest/request.go, maxRetries: an answer with Retry-After is tried again."""

_NAMESPACES: Final = Kind(resources.NAMESPACES)


@dataclass(slots=True)
class Review:
    """One request on its way through admission.

    Attributes:
        operation: CREATE, UPDATE, DELETE.
        obj: the object; None for a deletion.
        old: the object before; None for a creation.
        kind: ``kind`` of the object sent, which for a Binding is not the target's.
        user: name of the caller.
        warnings: what webhooks want the caller to read.
    """

    operation: str
    target: Target
    obj: Object | None
    old: Object | None
    dry_run: bool
    user: str
    kind: str = ""
    warnings: list[str] = field(default_factory=list)


class _CallFailed(Exception):  # noqa: N818 - turned into an answer at once
    """The webhook gave no usable answer; its failurePolicy decides."""


class Admission:
    """The webhooks registered in the storage."""

    def __init__(
        self, storage: Storage, services: Mapping[tuple[str, str], tuple[str, int]] | None = None
    ) -> None:
        """Read configurations from a storage.

        Args:
            storage: holds them.
            services: host and port behind the namespace and name of a Service.
        """
        self._storage = storage
        self.services = dict(services or {})
        self._contexts: dict[str, ssl.SSLContext] = {}

    async def mutate(self, review: Review) -> Object | None:
        """The object after all mutating webhooks.

        Those with reinvocationPolicy IfNeeded are called once more if a later one changed
        the object.

        Raises:
            ApiFailure: a webhook refused, or failed and its policy is Fail.
        """
        called: list[tuple[Object, Object | None]] = []
        for hook in self._matching(resources.MUTATING_WEBHOOKS, review):
            await self._mutate_by(hook, review)
            called.append((hook, review.obj))
        for hook, seen in called:
            if hook.get("reinvocationPolicy") == "IfNeeded" and seen != review.obj:
                await self._mutate_by(hook, review)
        return review.obj

    async def validate(self, review: Review) -> None:
        """Ask all validating webhooks at once.

        Raises:
            ApiFailure: the first refusal in the order of the configurations.
        """
        hooks = self._matching(resources.VALIDATING_WEBHOOKS, review)
        answers = await asyncio.gather(
            *(self._ask(hook, review) for hook in hooks), return_exceptions=True
        )
        for hook, answer in zip(hooks, answers, strict=True):
            if isinstance(answer, _CallFailed):
                _ignore_or_fail(hook, answer)
            elif isinstance(answer, BaseException):
                raise answer
            elif answer.get("patch") or answer.get("patchType"):
                _ignore_or_fail(
                    hook, _CallFailed("validating webhook may not return response.patch")
                )

    async def _mutate_by(self, hook: Object, review: Review) -> None:
        try:
            operations = _operations(await self._ask(hook, review))
        except _CallFailed as failure:
            _ignore_or_fail(hook, failure)
            return
        if operations and review.obj is not None:
            try:
                review.obj = json_patch(review.obj, operations)
            except ApiFailure as failure:
                # After the call, so the failurePolicy does not save the request.
                raise ApiFailure(
                    500, "InternalError", f"Internal error occurred: {failure}"
                ) from failure

    async def _ask(self, hook: Object, review: Review) -> Object:
        """The webhook's response after its refusal, if any, was raised."""
        uid = str(uuid.uuid4())
        body = msgspec.json.encode(_review_body(uid, review))
        timeout_s = hook.get("timeoutSeconds", 10)
        try:
            async with asyncio.timeout(timeout_s):
                answer = await self._post(hook, body, timeout_s)
        except TimeoutError as error:
            raise _CallFailed("context deadline exceeded") from error
        except (aiohttp.ClientError, OSError, ssl.SSLError) as error:
            raise _CallFailed(str(error)) from error
        response = answer.get("response")
        if not isinstance(response, dict) or answer.get("kind") != "AdmissionReview":
            raise _CallFailed(
                "received invalid webhook response: no AdmissionReview with a response"
            )
        if response.get("uid") != uid:
            raise _CallFailed(
                f'received invalid webhook response: expected response.uid="{uid}",'
                f' got "{response.get("uid", "")}"'
            )
        review.warnings += [w for w in response.get("warnings") or () if w not in review.warnings]
        if not response.get("allowed"):
            raise _refusal(hook["name"], response.get("status") or {})
        return response

    async def _post(self, hook: Object, body: bytes, timeout_s: int) -> Object:
        url, server_name = self._url(hook["clientConfig"])
        headers = {"Content-Type": "application/json", "Accept": "application/json, */*"}
        connector = aiohttp.TCPConnector(ssl=self._tls(hook["clientConfig"]))
        async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
            for _ in range(RETRIES + 1):
                async with session.post(
                    f"{url}?timeout={timeout_s}s", data=body, server_hostname=server_name
                ) as answer:
                    content = await answer.read()
                    retry_after = answer.headers.get("Retry-After", "")
                    if answer.status not in {429, *range(500, 600)} or not retry_after.isdigit():
                        break
                await asyncio.sleep(int(retry_after))
            if not 200 <= answer.status <= 206:
                raise _CallFailed(f"the server answered {answer.status}")
        try:
            decoded: Object = msgspec.json.decode(content, type=dict)
        except msgspec.MsgspecError as error:
            raise _CallFailed(str(error)) from error
        return decoded

    def _url(self, config: Object) -> tuple[str, str | None]:
        if "url" in config:
            return config["url"], None
        service = config["service"]
        where = service["namespace"], service["name"]
        if where not in self.services:
            raise _CallFailed(f'service "{service["name"]}" not found')
        host, port = self.services[where]
        name = f"{service['name']}.{service['namespace']}.svc"
        return f"https://{host}:{port}{service.get('path', '/')}", name

    def _tls(self, config: Object) -> ssl.SSLContext:
        bundle = config.get("caBundle", "")
        if bundle not in self._contexts:
            pem = base64.b64decode(bundle).decode("ascii") if bundle else None
            try:
                self._contexts[bundle] = ssl.create_default_context(cadata=pem)
            except (ssl.SSLError, ValueError) as error:
                raise _CallFailed("unable to parse bytes as PEM block") from error
        return self._contexts[bundle]

    def _matching(self, resource: resources.Resource, review: Review) -> list[Object]:
        """The webhooks that want the review, by name of configuration, then in its order."""
        if review.target.kind.resource in {
            resources.MUTATING_WEBHOOKS,
            resources.VALIDATING_WEBHOOKS,
        }:
            return []
        found = self._storage.snapshot(Kind(resource))
        return [
            hook
            for _, stored in sorted(found.items())
            for hook in stored.body.get("webhooks", ())
            if self._wants(hook, review)
        ]

    def _wants(self, hook: Object, review: Review) -> bool:
        if not any(_rule_matches(rule, review) for rule in hook.get("rules", ())):
            return False
        by_object = by_label_selector(hook.get("objectSelector"))
        if not any(by_object(obj) for obj in (review.obj, review.old) if obj is not None):
            return False
        name = review.target.namespace
        if review.target.kind.resource == resources.NAMESPACES:
            name = review.target.name
        if not name:
            return True
        namespace = self._storage.get(_NAMESPACES, ("", name))
        return namespace is None or by_label_selector(hook.get("namespaceSelector"))(
            namespace.body
        )


def _rule_matches(rule: Object, review: Review) -> bool:
    resource = review.target.kind.resource
    wanted = resource.plural + (
        f"/{review.target.subresource}" if review.target.subresource else ""
    )
    plural, _, sub = wanted.partition("/")
    names = {wanted, f"{plural}/*" if sub else plural, f"*/{sub}" if sub else "*", "*/*"}
    scope = rule.get("scope", "*")
    return (
        bool({"*", review.operation} & set(rule["operations"]))
        and bool({"*", resource.group} & set(rule["apiGroups"]))
        and bool({"*", resource.version} & set(rule["apiVersions"]))
        and bool(names & set(rule["resources"]))
        and (scope == "*" or (scope == "Namespaced") is resource.namespaced)
    )


def _review_body(uid: str, review: Review) -> Object:
    target, resource = review.target, review.target.kind.resource
    gvk = {
        "group": resource.group,
        "version": resource.version,
        "kind": review.kind or resource.kind,
    }
    gvr = {"group": resource.group, "version": resource.version, "resource": resource.plural}
    name = target.name or ((review.obj or {}).get("metadata") or {}).get("name", "")
    request = {
        "uid": uid,
        "kind": gvk,
        "resource": gvr,
        "requestKind": gvk,
        "requestResource": gvr,
        "operation": review.operation,
        "userInfo": {"username": review.user, "groups": ["system:authenticated"]},
        "object": review.obj,
        "oldObject": review.old,
        "dryRun": review.dry_run,
        "options": None,
    }
    if name:
        request["name"] = name
    if target.namespace:
        request["namespace"] = target.namespace
    if target.subresource:
        request["subResource"] = request["requestSubResource"] = target.subresource
    return {"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": request}


def _operations(response: Object) -> list[Object]:
    patch, kind = response.get("patch"), response.get("patchType")
    if (patch is None) != (kind is None) or kind not in {None, "JSONPatch"}:
        raise _CallFailed("webhook returned response.patch and response.patchType unpaired")
    try:
        return msgspec.json.decode(base64.b64decode(patch), type=list[Object]) if patch else []
    except (ValueError, msgspec.MsgspecError) as error:
        raise _CallFailed(f"response.patch: {error}") from error


def _refusal(hook: str, status: Object) -> ApiFailure:
    """Source: apiserver pkg/admission/plugin/webhook/errors/statuserror.go, ToStatusErr."""
    text = f'admission webhook "{hook}" denied the request'
    message, reason = status.get("message", ""), status.get("reason", "")
    code = status.get("code", 400)
    text += f": {message or reason}" if message or reason else " without explanation"
    return ApiFailure(max(code, 400), reason, text, details=status.get("details"))


def _ignore_or_fail(hook: Object, failure: _CallFailed) -> None:
    if hook.get("failurePolicy", "Fail") == "Ignore":
        return
    raise ApiFailure(
        500,
        "InternalError",
        f'Internal error occurred: failed calling webhook "{hook["name"]}": failed to call'
        f" webhook: {failure}",
    ) from failure


def with_object(review: Review, obj: Object | None) -> Review:
    """The same request with another object; warnings are shared."""
    return replace(review, obj=obj)
