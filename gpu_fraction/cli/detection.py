"""``gpu-fraction backends detect``: which GPU stacks a cluster runs."""

import argparse
import asyncio
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gpu_fraction.cli import cluster_traces, config
from gpu_fraction.cli.cluster import ClusterSettings
from gpu_fraction.cli.manifests import ManifestError
from gpu_fraction.domain import keys
from gpu_fraction.domain.backends import BACKENDS
from gpu_fraction.domain.traces import ClusterTraces, Finding, detect
from gpu_fraction.kube.client import connect
from gpu_fraction.kube.errors import KubeError
from gpu_fraction.settings.declaration import group
from gpu_fraction.settings.option import SettingsError

DESCRIPTION: Final = """\
Say which GPU stacks a cluster runs and which setting to take.

Reads nodes, custom resource definitions, webhook configurations, resource slices and the scheduler
names of pods; what may not be read is left out with a warning. With -f it reads lists that kubectl
has written as JSON or YAML, and no cluster.
"""

TIMEOUT_S: Final = 60.0
"""Timeout of reading a cluster in seconds. Chosen: a user is waiting, for all pods."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of ``backends detect``."""

    cluster: ClusterSettings = group(ClusterSettings, "cluster")


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``backends detect``."""
    parser.description = DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "-f",
        "--filename",
        action="append",
        metavar="FILE|-",
        help="lists that kubectl has written, instead of a cluster; repeatable",
    )
    config.declare(parser, Settings)


def run(args: argparse.Namespace, environ: Mapping[str, str], *, as_json: bool) -> int:
    """Run ``backends detect``; the exit code."""
    left_out: list[str] = []
    try:
        if args.filename:
            cluster = cluster_traces.from_files(args.filename, sys.stdin)
        else:
            settings = config.settings(Settings, args, environ).cluster
            if not settings.reachable(environ):
                raise SettingsError(
                    ["--kubeconfig is required outside a cluster, or -f with recorded lists"]
                )
            cluster, left_out = asyncio.run(_read(settings, environ))
    except ManifestError as e:
        sys.stderr.write(f"gpu-fraction backends: {e}\n")
        return 2
    except (KubeError, TimeoutError) as e:
        reason = str(e) or f"the API server did not answer within {TIMEOUT_S:.0f} s"
        sys.stderr.write(f"gpu-fraction backends: {reason}\n")
        return 1
    for line in left_out:
        sys.stderr.write(f"Warning: {line}\n")
    found = detect(cluster, BACKENDS)
    if as_json:
        settings_of_it = {"backend": None, "namespaceBackends": [], **advice(found)}
        sys.stdout.write(
            as_text({"found": [_finding(one) for one in found], "settings": settings_of_it})
        )
    else:
        sys.stdout.write(_told(cluster, found))
    return 0


async def _read(
    settings: ClusterSettings, environ: Mapping[str, str]
) -> tuple[ClusterTraces, list[str]]:
    source = settings.access(environ)
    async with asyncio.timeout(TIMEOUT_S), connect(source, component="backends") as client:
        return await cluster_traces.from_server(client)


def _finding(one: Finding) -> dict[str, Any]:
    return {"backend": one.backend, "nodes": list(one.nodes), "seen": list(one.seen)}


def advice(found: Sequence[Finding]) -> dict[str, Any]:
    """The settings for what was found, and the reason; empty for nothing."""
    if not found:
        return {}
    first, *others = [one for one in found if one.nodes] or found[:1]
    title = BACKENDS[first.backend].about.title
    why = f"{title} hands out the GPUs of {len(first.nodes)} node(s)"
    if not first.nodes:
        why = f"{title} is installed, though no node shows its GPUs"
    names = [one.backend for one in others]
    if names:
        why += "; namespaces may select the others by the label " + keys.LABEL_BACKEND
    return {"backend": first.backend, "namespaceBackends": names, "reason": why}


def _told(cluster: ClusterTraces, found: Sequence[Finding]) -> str:
    if not found:
        return (
            f"None of {len(BACKENDS)} known stacks shows in {len(cluster.nodes)} node(s), "
            f"{len(cluster.crds)} CRD(s) and {len(cluster.webhooks)} webhook name(s).\n"
        )
    rows = [
        (one.backend, BACKENDS[one.backend].about.title, str(len(one.nodes)), ", ".join(one.seen))
        for one in found
    ]
    said = advice(found)
    flags = f"--backend {said['backend']}"
    if said["namespaceBackends"]:
        flags += f" --namespace-backends {','.join(said['namespaceBackends'])}"
    lines = table(("BACKEND", "STACK", "NODES", "SEEN BY"), rows)
    return f"{lines}\nSettings: {flags}\nReason: {said['reason']}\n"


def as_text(body: object) -> str:
    """JSON for people to read too."""
    return json.dumps(body, indent=2, ensure_ascii=False) + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns as wide as their cells."""
    lines = [head, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = (
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        for line in lines
    )
    return "".join(line.rstrip() + "\n" for line in padded)
