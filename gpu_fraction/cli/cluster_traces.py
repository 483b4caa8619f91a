"""Reads what GPU stacks leave in a cluster, from its API server or from recorded lists."""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TextIO

import msgspec
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from gpu_fraction.cli.manifests import TEMPLATES, ManifestError, mapping_at
from gpu_fraction.domain import units
from gpu_fraction.domain.traces import ClusterTraces
from gpu_fraction.kube.client import Client
from gpu_fraction.kube.errors import ForbiddenError, NotFoundError
from gpu_fraction.kube.objects import Meta
from gpu_fraction.kube.resources import (
    CRDS,
    MUTATING_WEBHOOKS,
    NODES,
    PODS,
    RESOURCE_SLICES,
    VALIDATING_WEBHOOKS,
)

READ: Final = (NODES, CRDS, MUTATING_WEBHOOKS, VALIDATING_WEBHOOKS, RESOURCE_SLICES, PODS)

_ARGUMENT: Final = re.compile(r"--scheduler-name[= ](\S+)")


async def from_server(client: Client) -> tuple[ClusterTraces, list[str]]:
    """What the API server tells; and a line for each collection that it does not.

    Raises:
        KubeError: the server cannot be asked at all.
    """
    cluster = ClusterTraces()
    left_out = []
    for resource in READ:
        try:
            listing = await client.list(resource.at(), _Pod if resource is PODS else _Object)
        except (ForbiddenError, NotFoundError) as e:
            left_out.append(f"{resource.plural} are left out: {e}")
            continue
        for one in listing.items:
            take(cluster, resource.kind, msgspec.to_builtins(one))
    return cluster, left_out


class _Meta(Meta, frozen=True, kw_only=True):
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None


class _Runs(msgspec.Struct, frozen=True, kw_only=True):
    command: list[str] | None = None
    args: list[str] | None = None


class _PodSpec(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    scheduler_name: str = ""
    containers: list[_Runs] = []


class _Pod(msgspec.Struct, frozen=True, kw_only=True):
    """A pod: there are many, so nothing else of them is decoded."""

    metadata: _Meta = _Meta()
    spec: _PodSpec = _PodSpec()


class _Object(msgspec.Struct, frozen=True, kw_only=True):
    """Any other object."""

    metadata: _Meta = _Meta()
    spec: dict[str, Any] | None = None
    status: dict[str, Any] | None = None
    webhooks: list[dict[str, Any]] | None = None


def from_files(names: Iterable[str], stdin: TextIO) -> ClusterTraces:
    """What recorded lists tell (``kubectl get nodes,crds -o json``), JSON or YAML.

    Raises:
        ManifestError: a file is missing, unreadable or neither.
    """
    cluster = ClusterTraces()
    for name in names:
        try:
            content = stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
            bodies = _parsed(content)
        except (OSError, UnicodeDecodeError) as e:
            raise ManifestError(f"{name}: {e}") from e
        except (YAMLError, msgspec.DecodeError, RecursionError) as e:
            raise ManifestError(f"{name}: neither JSON nor YAML: {e}") from e
        for body in bodies:
            for one in _objects(body):
                take(cluster, str(one.get("kind")), one)
    return cluster


def _parsed(content: str) -> list[object]:
    if content.lstrip().startswith("{"):  # A list of nodes is long, and YAML is slow.
        return [msgspec.json.decode(content)]
    return list(YAML(typ="safe", pure=True).load_all(content))


def _objects(body: object) -> Iterator[Mapping[str, Any]]:
    if isinstance(body, dict) and isinstance(body.get("items"), list):
        for item in body["items"]:
            yield from _objects(item)
    elif isinstance(body, dict):
        yield body


def take(cluster: ClusterTraces, kind: str, one: Mapping[str, Any]) -> None:
    """Add what one object tells."""
    metadata = mapping_at(one, "metadata") or {}
    name = str(metadata.get("name", ""))
    if kind == "Node":
        _take_node(cluster, name, one)
    elif kind == "CustomResourceDefinition":
        cluster.crds.add(name)
    elif kind in ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"):
        cluster.webhooks |= {name, *(str(hook.get("name")) for hook in _list(one, "webhooks"))}
    elif kind == "ResourceSlice":
        spec = mapping_at(one, "spec") or {}
        if "driver" in spec:
            cluster.node(str(spec.get("nodeName", ""))).drivers.add(str(spec["driver"]))
    elif kind in TEMPLATES and (pod := mapping_at(one, *TEMPLATES[kind], "spec")) is not None:
        cluster.schedulers |= _schedulers(pod)


def _take_node(cluster: ClusterTraces, name: str, one: Mapping[str, Any]) -> None:
    node = cluster.node(name)
    metadata = mapping_at(one, "metadata") or {}
    node.labels |= {f"{k}={v}" for k, v in (mapping_at(metadata, "labels") or {}).items()}
    node.annotations |= set(mapping_at(metadata, "annotations") or {})
    offered = mapping_at(one, "status", "capacity") or mapping_at(one, "status", "allocatable")
    node.resources |= {r for r, text in (offered or {}).items() if units.whole_amount(str(text))}


def _schedulers(pod: Mapping[str, Any]) -> set[str]:
    """The scheduler that the pod uses, and the one that runs in it."""
    arguments = (
        " ".join(map(str, (*_list(container, "command"), *_list(container, "args"))))
        for container in _list(pod, "containers")
    )
    run = {name for text in arguments for name in _ARGUMENT.findall(text)}
    return {str(used) for used in (pod.get("schedulerName"),) if used} | run


def _list(node: Mapping[str, Any], key: str) -> list[Any]:
    found = node.get(key)
    return found if isinstance(found, list) else []
