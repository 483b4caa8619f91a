"""``gpu-fraction certs``: show or renew the webhook's certificates."""

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
from gpu_fraction.cli.config import Commands
from gpu_fraction.kube import server_version
from gpu_fraction.kube.access import AccessSource
from gpu_fraction.kube.client import connect
from gpu_fraction.kube.errors import KubeError
from gpu_fraction.settings.declaration import group

DESCRIPTION: Final = """\
Show or renew the webhook's certificates.

The webhook and the controller manage a CA in a Secret, a leaf certificate for each replica, and
the caBundles in the webhook configurations. Rotation is automatic; use these commands to inspect
it or to start it early.

examples:
  gpu-fraction certs status --kubeconfig ~/.kube/config
  gpu-fraction certs rotate         new leaf certificates, one per replica
  gpu-fraction certs rotate --ca    a new CA as well, without downtime
"""

TIMEOUT_S: Final = 30.0
"""Timeout of a command in seconds. Chosen: a user is waiting."""


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of the command."""

    cluster: ClusterSettings = group(ClusterSettings, "cluster")
    certificates: CertificateSettings = group(
        CertificateSettings, "certificates, as for the webhook"
    )


def add_parser(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add_parser("certs", description=DESCRIPTION)
    actions = parser.add_subparsers(dest="action", required=True, metavar="status|rotate")
    shown = actions.add_parser("status", help="show the CA, its rotation, every caBundle and leaf")
    shown.add_argument(
        "-o",
        "--output",
        choices=("text", "json"),
        default="text",
        help="output format (default text)",
    )
    renewed = actions.add_parser("rotate", help="renew the leaves, with --ca also the CA")
    renewed.add_argument("--ca", action="store_true", help="renew the CA and then the leaves")
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
        reason = str(e) or f"the API server did not answer within {TIMEOUT_S:.0f} s"
        sys.stderr.write(f"gpu-fraction certs: {reason}\n")
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
        return await status(
            client, settings.installation, settings.lifetimes, as_json=args.output == "json"
        )
