"""``gpu-fraction certs``: show the webhook's certificates, or ask for new ones."""

import argparse
import asyncio
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from gpu_fraction.certs.commands import rotate, status
from gpu_fraction.certs.settings import CertificateSettings
from gpu_fraction.cli import config
from gpu_fraction.cli.cluster import ClusterSettings
from gpu_fraction.kube import server_version
from gpu_fraction.kube.access import AccessSource
from gpu_fraction.kube.client import connect
from gpu_fraction.kube.errors import KubeError
from gpu_fraction.settings.declaration import group

DESCRIPTION: Final = """\
Show the webhook's certificates, or ask for new ones.

The webhook and the controller manage them: a CA in a Secret, a leaf for each replica, caBundles
in the webhook configurations. Rotation needs no person; these commands show it or start it early.

examples:
  gpu-fraction certs status --kubeconfig ~/.kube/config
  gpu-fraction certs rotate         every replica signs a new leaf
  gpu-fraction certs rotate --ca    a new CA, without a failed request
"""

TIMEOUT_S: Final = 30.0
"""Seconds for a whole command. Chosen: a person waits."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be set."""

    cluster: ClusterSettings = group(ClusterSettings, "which cluster")
    certificates: CertificateSettings = group(CertificateSettings, "as the webhook was started")


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "certs",
        help="show the webhook's certificates, or renew them",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="status|rotate")
    shown = actions.add_parser("status", help="the CA, its rotation, every caBundle and leaf")
    renewed = actions.add_parser("rotate", help="ask for new leaves, or with --ca for a new CA")
    renewed.add_argument("--ca", action="store_true", help="a new CA and then new leaves")
    for action in (shown, renewed):
        config.declare(action, Settings)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Run the command and return the exit code."""
    settings = config.settings(Settings, args, environ)
    source = settings.cluster.access(environ)
    try:
        sys.stdout.write(asyncio.run(_ask(args, settings.certificates, source)).rstrip() + "\n")
    except (KubeError, TimeoutError) as e:
        sys.stderr.write(f"gpu-fraction certs: {str(e) or 'the API server did not answer'}\n")
        return 1
    return 0


async def _ask(
    args: argparse.Namespace, settings: CertificateSettings, source: AccessSource
) -> str:
    async with asyncio.timeout(TIMEOUT_S), connect(source, component="certs") as client:
        if problem := await server_version.unsupported(client):
            sys.stderr.write(f"gpu-fraction certs: {problem}\n")
        if args.action == "rotate":
            return await rotate(client, settings.installation, ca=args.ca)
        return await status(client, settings.installation, settings.lifetimes)
