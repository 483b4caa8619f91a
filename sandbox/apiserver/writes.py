"""Which verb a writing request calls, and what its answer looks like."""

from dataclasses import replace
from functools import partial
from typing import Any

import msgspec
from aiohttp import web

from gpu_fraction.kube import resources
from gpu_fraction.kube.resources import CRDS
from gpu_fraction.sandbox.apiserver import failures, patches, scale
from gpu_fraction.sandbox.apiserver.kinds import from_crd
from gpu_fraction.sandbox.apiserver.reading import Reading
from gpu_fraction.sandbox.apiserver.routing import Routes, Target
from gpu_fraction.sandbox.apiserver.storage import Object, Storage
from gpu_fraction.sandbox.apiserver.verbs import Caller, Change, Verbs

Outcome = tuple[int, Object]
"""HTTP status and body."""


class Writes:
    """The requests that change something."""

    def __init__(self, storage: Storage, verbs: Verbs, routes: Routes) -> None:
        """Serve writes to a storage."""
        self._storage = storage
        self._verbs = verbs
        self._routes = routes

    async def serve(
        self, request: web.Request, target: Target, verb: str, caller: Caller
    ) -> Outcome:
        """Carry a request out.

        Raises:
            ApiFailure: what is wrong with it.
        """
        body = await _body(request)
        match target.subresource:
            case "" | "status":
                return await self._write(request, target, verb, body, caller)
            case "binding" if verb == "create":
                await self._verbs.bind(target, body, caller)
            case "eviction" if verb == "create":
                await self._verbs.delete(target, body.get("deleteOptions") or {}, caller)
            case "scale" if target.kind.scale and verb in {"update", "patch"}:
                return 200, await self._scale(request.content_type, target, body, caller)
            case _:
                raise failures.no_such_path()
        return 201, _success(target)

    async def _scale(self, content_type: str, target: Target, body: Any, caller: Caller) -> Object:
        merging = content_type == "application/merge-patch+json"

        def change(old: Object) -> Object:
            wanted = patches.merge_patch(scale.of(old), patch=body) if merging else body
            return scale.onto(old, wanted)

        return scale.of(await self._verbs.update(replace(target, subresource=""), change, caller))

    async def _write(
        self, request: web.Request, target: Target, verb: str, body: Any, caller: Caller
    ) -> Outcome:
        if target.subresource and (verb not in {"update", "patch"} or not target.kind.status):
            raise failures.no_such_path()
        match verb:
            case "create":
                return 201, await self._verbs.create(target, body, caller)
            case "update":
                obj = await self._verbs.update(target, lambda _: body, caller, conditional=True)
                return 200, obj
            case "patch":
                return await self._patch(request.content_type, target, body, caller)
            case "delete":
                return 200, await self._delete(target, body, caller)
            case _:
                return 200, await self._delete_all(request, target, body, caller)

    async def _patch(
        self, content_type: str, target: Target, body: Any, caller: Caller
    ) -> Outcome:
        change: Change
        match content_type:
            case "application/apply-patch+yaml":
                obj, created = await self._verbs.apply(target, body, caller)
                return (201 if created else 200), obj
            case "application/json-patch+json":
                change = partial(patches.json_patch, operations=body)
            case "application/merge-patch+json":
                change = partial(patches.merge_patch, patch=body)
            case "application/strategic-merge-patch+json" if not target.kind.custom:
                change = partial(patches.strategic_patch, target.kind, patch=body)
            case other:
                raise failures.of_code(
                    415, f"the body of the request was in an unknown format: {other}"
                )
        return 200, await self._verbs.update(target, change, caller)

    async def _delete(self, target: Target, options: Object, caller: Caller) -> Object:
        resource = target.kind.resource
        obj = await self._verbs.delete(target, options, caller)
        if resource == resources.NAMESPACES and not caller.dry_run:
            await self._empty_namespace(target.name, caller)
        if resource == CRDS and not caller.dry_run:
            self._routes.remove(from_crd(obj))
        if resource in {resources.PODS, resources.NAMESPACES}:
            return obj
        return _success(target, uid=obj["metadata"]["uid"])

    async def _delete_all(
        self, request: web.Request, target: Target, options: Object, caller: Caller
    ) -> Object:
        selected = Reading.parse(target, request.query).selected
        for (namespace, name), stored in sorted(self._storage.snapshot(target.kind).items()):
            if selected(stored.body):
                await self._verbs.delete(Target(target.kind, namespace, name), options, caller)
        return _success(target)

    async def _empty_namespace(self, name: str, caller: Caller) -> None:
        """What the namespace controller does; no pod gets time to stop."""
        for kind in self._routes:
            if not kind.resource.namespaced:
                continue
            for key in sorted(self._storage.snapshot(kind)):
                if key[0] == name:
                    await self._verbs.delete(Target(kind, *key), {"gracePeriodSeconds": 0}, caller)


def caller_of(request: web.Request, user: str) -> Caller:
    """Who asks, and how.

    Raises:
        ApiFailure: 422 where a parameter is wrong or missing.
    """
    dry_run = request.query.get("dryRun", "")
    if dry_run not in {"", "All"}:
        raise failures.invalid_option(
            _options(request), "dryRun", f'Unsupported value: "{dry_run}"'
        )
    manager = request.query.get("fieldManager", "")
    if request.content_type.startswith("application/apply-patch") and not manager:
        why = "Required value: is required for apply patch"
        raise failures.invalid_option(_options(request), "fieldManager", why)
    agent = request.headers.get("User-Agent", "unknown").partition("/")[0]
    force = request.query.get("force", "") == "true"
    return Caller(user, manager or agent, bool(dry_run), force, [])


def _options(request: web.Request) -> str:
    names = {"POST": "Create", "PUT": "Update", "PATCH": "Patch", "DELETE": "Delete"}
    return f"{names[request.method]}Options"


async def _body(request: web.Request) -> Any:
    if request.content_type == "application/vnd.kubernetes.protobuf":
        raise failures.of_code(415, "the sandbox understands JSON only: use kubectl create -f")
    content = await request.read()
    if not content:
        return {}
    try:
        return msgspec.json.decode(content)
    except msgspec.MsgspecError as error:
        raise failures.bad_request(f"the object provided is unrecognized: {error}") from error


def _success(target: Target, *, uid: str = "") -> Object:
    details = {"name": target.name, "kind": target.kind.resource.plural}
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": {**details, "uid": uid} if uid else details,
    }
