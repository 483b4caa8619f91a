"""Node objects without anything of ours."""

import argparse
import sys
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Final

import msgspec

from gpu_fraction.cli import asking
from gpu_fraction.cli.asking import Asked
from gpu_fraction.domain import keys
from gpu_fraction.kube.errors import NotFoundError
from gpu_fraction.kube.objects import Identity, Meta
from gpu_fraction.kube.requests import PatchKind, Selection
from gpu_fraction.kube.resources import DAEMON_SETS, NODES

REFUSED: Final = 1
_DAEMONS: Final = "app.kubernetes.io/part-of=gpu-fraction,app.kubernetes.io/component=node-daemon"
"""Labels of the chart and of the rendered manifests."""


class _Metadata(Meta, frozen=True, kw_only=True):
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None


class _Status(msgspec.Struct, frozen=True, kw_only=True):
    capacity: dict[str, Any] | None = None
    allocatable: dict[str, Any] | None = None


class _Node(msgspec.Struct, frozen=True, kw_only=True):
    metadata: _Metadata = _Metadata()
    status: _Status = _Status()


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Run the command; the exit code."""
    return asking.answer(args, environ, "cleanup", partial(_clean, dry_run=args.dry_run))


async def _clean(asked: Asked, *, dry_run: bool) -> int:
    daemons = await asked.client.list(
        DAEMON_SETS.at(), Identity, Selection(labels=_DAEMONS), timeout_s=asked.timeout_s
    )
    if daemons.items:
        meta = daemons.items[0].metadata
        sys.stderr.write(
            f"gpu-fraction cleanup: DaemonSet {meta.namespace}/{meta.name} runs the node daemon, "
            "which would write everything again; uninstall it first\n"
        )
        return REFUSED
    nodes = await asked.client.list(NODES.at(), _Node, timeout_s=asked.timeout_s)
    verb, changed = "would lose" if dry_run else "lost", False
    for node in nodes.items:
        if found := _ours(node):
            changed = True
            if dry_run or await _remove(asked, node.metadata.name, found):
                names = ", ".join(sorted({name for _, _, names in found for name in names}))
                sys.stdout.write(f"node/{node.metadata.name} {verb} {names}\n")
    if not changed:
        sys.stdout.write(f"{len(nodes.items)} nodes, and nothing of {keys.GROUP} on them\n")
    return 0


_Found = list[tuple[str, str, list[str]]]
"""Section and field of a Node, and the names of ours in it."""


def _ours(node: _Node) -> _Found:
    fields: tuple[tuple[str, str, Iterable[str] | None], ...] = (
        ("metadata", "labels", node.metadata.labels),
        ("metadata", "annotations", node.metadata.annotations),
        ("status", "capacity", node.status.capacity),
        ("status", "allocatable", node.status.allocatable),
    )
    named = [
        (section, field, [name for name in names or () if name.startswith(keys.PREFIX)])
        for section, field, names in fields
    ]
    return [one for one in named if one[2]]


async def _remove(asked: Asked, node: str, found: _Found) -> bool:
    """Whether the node was there; RFC 7386: null removes a name, and no other is touched."""
    for section, subresource in (("metadata", ""), ("status", "status")):
        fields = {field: dict.fromkeys(names) for where, field, names in found if where == section}
        if not fields:
            continue
        address = NODES.at(node, subresource=subresource)
        body: dict[str, Any] = {section: fields}
        try:
            await asked.client.patch(
                address, PatchKind.MERGE, body, Identity, timeout_s=asked.timeout_s
            )
        except NotFoundError:  # scaled away meanwhile
            return False
    return True
