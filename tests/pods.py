"""Pods as the API server hands them over, built for tests."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from gpu_fraction.domain.pod import Pod

Raw = dict[str, Any]


def container(name: str = "main", resources: Mapping[str, Any] | None = None, **rest: Any) -> Raw:
    """A container; ``resources`` are limits and requests alike."""
    made: Raw = {"name": name, "image": "busybox", **rest}
    if resources is not None:
        made["resources"] = {"limits": dict(resources), "requests": dict(resources)}
    return made


def pod(
    annotations: Mapping[str, str] | None = None,
    *containers: Raw,
    init: Sequence[Raw] = (),
    ephemeral: Sequence[Raw] = (),
    **spec: Any,
) -> Raw:
    """A pod in namespace ``team-a``; one container ``main`` where none is given."""
    metadata: Raw = {"name": "p", "namespace": "team-a"}
    if annotations is not None:
        metadata["annotations"] = dict(annotations)
    body: Raw = {"containers": [dict(c) for c in containers or (container(),)], **spec}
    if init:
        body["initContainers"] = list(init)
    if ephemeral:
        body["ephemeralContainers"] = list(ephemeral)
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": body}


def typed(raw: Mapping[str, Any]) -> Pod:
    """The pod as the domain sees it, by the same road as the wire."""
    return msgspec.json.decode(msgspec.json.encode(raw), type=Pod)


def env(*pairs: tuple[str, str | None]) -> list[Raw]:
    """Environment variables; None stands for a reference to somewhere else."""
    return [
        {"name": name, "value": value}
        if value is not None
        else {"name": name, "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}}
        for name, value in pairs
    ]


def paths(problems: Iterable[Any]) -> list[str]:
    """The fields that problems are about."""
    return [problem.path for problem in problems]
