"""Reads what ``explain`` needs of one pod, or of an owner and the pod that it would make."""

import asyncio
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import msgspec

from gpu_fraction.dashboard import events, snapshot
from gpu_fraction.dashboard.explain import installed
from gpu_fraction.dashboard.explain.facts import Facts, Hook, Webhook, as_pod
from gpu_fraction.dashboard.explain.owners import CHILDREN, age, idle, owned, template, wanted
from gpu_fraction.dashboard.explain.refusals import REASONS
from gpu_fraction.dashboard.objects import Event, ObjectMeta, Pod
from gpu_fraction.dashboard.snapshot import Gap, Snapshot
from gpu_fraction.domain import keys, request_annotation
from gpu_fraction.domain.backends import BACKENDS
from gpu_fraction.kube.client import Client
from gpu_fraction.kube.errors import ForbiddenError, KubeError, NotFoundError
from gpu_fraction.kube.objects import Identity
from gpu_fraction.kube.resources import (
    CLAIM_TEMPLATES,
    MUTATING_WEBHOOKS,
    NAMESPACES,
    PODS,
    Resource,
)
from gpu_fraction.settings.rewrite import RewriteSettings

T = TypeVar("T")
Raw = Mapping[str, Any]


class _WebhookIn(msgspec.Struct, frozen=True, rename="camel"):
    name: str = ""
    namespace_selector: dict[str, Any] | None = None


class _Configuration(msgspec.Struct, frozen=True, kw_only=True):
    metadata: ObjectMeta = ObjectMeta()
    webhooks: list[_WebhookIn] | None = None


class _Namespace(msgspec.Struct, frozen=True, kw_only=True):
    metadata: ObjectMeta = ObjectMeta()


@dataclass(slots=True)
class _Reader:
    """The requests of one explanation; what fails becomes a gap."""

    client: Client
    namespace: str
    timeout_s: float
    gaps: list[Gap] = field(default_factory=list)

    async def get(self, resource: Resource, name: str) -> Raw:
        """One object as JSON.

        Raises:
            KubeError: it is not there, or may not be read.
        """
        address = resource.at(namespace=self.namespace, name=name)
        return await self.client.get(address, dict, timeout_s=self.timeout_s)

    async def tried(self, what: str, work: Awaitable[T]) -> T | None:
        """The answer; None, with a gap, where there is none."""
        try:
            return await work
        except KubeError as e:
            why: snapshot.Why = "forbidden" if isinstance(e, ForbiddenError) else "failed"
            if not isinstance(e, NotFoundError):
                self.gaps.append(Gap(what, why, str(e)))
            return None

    async def labels(self) -> Mapping[str, str] | None:
        """The namespace's."""
        address = NAMESPACES.at(name=self.namespace)
        found = await self.tried(
            "namespaces", self.client.get(address, _Namespace, timeout_s=self.timeout_s)
        )
        return None if found is None else found.metadata.labels or {}

    async def hooks(self) -> tuple[Hook, ...] | None:
        """The product's mutating webhooks."""
        found = await self.tried(
            "mutatingwebhookconfigurations",
            self.client.list(MUTATING_WEBHOOKS.at(), _Configuration, timeout_s=self.timeout_s),
        )
        if found is None:
            return None
        return tuple(
            Hook(hook.name, one.metadata.name, hook.namespace_selector or {})
            for one in found.items
            for hook in one.webhooks or ()
            if hook.name.endswith(f".{keys.GROUP}")
        )

    async def templates(self, raw: Raw) -> frozenset[str] | None:
        """Names of claim templates, where the pod names some."""
        if not (raw.get("spec") or {}).get("resourceClaims"):
            return frozenset()
        address = CLAIM_TEMPLATES.at(namespace=self.namespace)
        found = await self.tried(
            "resourceclaimtemplates",
            self.client.list(address, Identity, timeout_s=self.timeout_s),
        )
        return None if found is None else frozenset(one.metadata.name for one in found.items)

    async def events(
        self, kind: str, name: str, uid: str = "", *, cluster_wide: bool = False
    ) -> tuple[Event, ...]:
        """Of one object, oldest first."""
        work = events.about(
            self.client,
            kind,
            name,
            namespace="" if cluster_wide else self.namespace,
            uid=uid,
            timeout_s=self.timeout_s,
        )
        return tuple(await self.tried("events", work) or ())

    async def facts(self, found: Snapshot, raw: Raw, **given: Any) -> Facts:
        """All that is known beside the snapshot."""
        node = (raw.get("spec") or {}).get("nodeName") or ""
        labels, hooks, templates, webhook, node_events = await asyncio.gather(
            self.labels(),
            self.hooks(),
            self.templates(raw),
            installed.settings(self.client, timeout_s=self.timeout_s),
            # The daemon's Events on its Node have the Node's name as their UID.
            self.events("Node", node, cluster_wide=True) if node else _none(),
        )
        label = (labels or {}).get(keys.LABEL_BACKEND)
        return Facts(
            found,
            namespace=self.namespace,
            raw=raw,
            labels=labels,
            hooks=hooks,
            templates=templates,
            webhook=_webhook(*webhook, label, as_pod(raw)),
            node_events=node_events,
            gaps=tuple(self.gaps),
            **given,
        )


def _webhook(read: RewriteSettings, source: str, label: str | None, pod: Pod) -> Webhook:
    """The webhook's settings; unread, the backend is that for which the pod was written."""
    rendered = request_annotation.find(pod.annotations)
    if not source and rendered is not None and rendered.backend in BACKENDS:
        read = replace(read, backend=rendered.backend)
    return Webhook(read, label, source)


async def _none() -> tuple[Event, ...]:
    return ()


async def read(
    client: Client,
    resource: Resource,
    namespace: str,
    name: str,
    *,
    timeout_s: float = snapshot.TIMEOUT_S,
) -> Facts:
    """Read the facts about a pod, or about an owner of pods.

    Args:
        client: The connection.
        resource: One of ``owners.KINDS``.
        namespace: Where the object is.
        name: Its name.
        timeout_s: Seconds for each request.

    Raises:
        NotFoundError: there is no such object.
        KubeError: it cannot be read.
    """
    reader = _Reader(client, namespace, timeout_s)
    raw, found = await asyncio.gather(
        reader.get(resource, name),
        snapshot.read(client, namespaces=[namespace], timeout_s=timeout_s),
    )
    if resource is PODS:
        return await _of_pod(reader, found, raw, name)
    return await _of_owner(reader, found, resource, raw, name)


async def _of_pod(reader: _Reader, found: Snapshot, raw: Raw, name: str) -> Facts:
    uid = str((raw.get("metadata") or {}).get("uid") or "")
    told = await reader.events("Pod", name, uid)
    return await reader.facts(_with(found, as_pod(raw)), raw, kind="Pod", name=name, events=told)


def _with(found: Snapshot, pod: Pod) -> Snapshot:
    """The snapshot with the pod, where it may be read but not listed."""
    if any(one.metadata.uid == pod.metadata.uid for one in found.pods.items):
        return found
    return replace(found, pods=replace(found.pods, items=(*found.pods.items, pod)))


async def _of_owner(
    reader: _Reader, found: Snapshot, resource: Resource, raw: Raw, name: str
) -> Facts:
    owner, kind = raw, resource.kind
    told = list(await reader.events(kind, name, _uid(raw)))
    if (between := CHILDREN.get(kind)) is not None:
        newest = await _newest(reader, between, _uid(raw))
        if newest is not None:
            owner = newest
            told += await reader.events(between.kind, _name(newest), _uid(newest))
    pods = [one for one in found.pods.items if owned(one, _uid(owner))]
    live = [one for one in pods if not one.finished and not one.metadata.deletion_timestamp]
    refused = any(event.reason in REASONS for event in told)
    if pods and (len(live) >= wanted(owner) or not refused):
        # The pod to look at is the one that waits longest.
        order = {"Pending": 0, "Failed": 1, "Running": 2}
        chosen = min(
            live or pods,
            key=lambda one: (
                order.get(one.status.phase, 3),
                one.metadata.creation_timestamp or "",
            ),
        )
        pod = await reader.tried("pods", reader.get(PODS, chosen.metadata.name))
        if pod is not None:
            return await _of_pod(reader, found, pod, chosen.metadata.name)
    told.sort(key=lambda event: event.at)
    made = template(owner, reader.namespace, name)
    return await reader.facts(
        found, made, kind=kind, name=name, events=tuple(told), exists=False, idle=idle(raw)
    )


async def _newest(reader: _Reader, resource: Resource, uid: str) -> Raw | None:
    address = resource.at(namespace=reader.namespace)
    work: Awaitable[Any] = reader.client.list(address, dict, timeout_s=reader.timeout_s)
    found = await reader.tried(resource.plural, work)
    mine = [
        one
        for one in (found.items if found else ())
        if any(o.get("uid") == uid for o in one["metadata"].get("ownerReferences") or ())
    ]
    return max(mine, key=age, default=None)


def _uid(raw: Raw) -> str:
    return str((raw.get("metadata") or {}).get("uid") or "")


def _name(raw: Raw) -> str:
    return str((raw.get("metadata") or {}).get("name") or "")
