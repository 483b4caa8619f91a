"""``gpu-fraction scheduler-certs``: certificates for a scheduler and its extender."""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from gpu_fraction.certs.pod_tls import write_pod_tls
from gpu_fraction.cli.config import Commands
from gpu_fraction.kube.timestamps import utc_now

DESCRIPTION: Final = """\
Write ca.crt, tls.crt, tls.key, client.crt and client.key into a folder that kube-scheduler and
the extender of the same pod share. The CA's key is not stored.

example:
  gpu-fraction scheduler-certs /tls
"""


def add_parser(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "scheduler-certs",
        description=DESCRIPTION,
    )
    parser.add_argument("folder", metavar="DIR", help="an existing folder")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, _environ: Mapping[str, str]) -> int:
    """Run the command; the exit code."""
    try:
        write_pod_tls(Path(args.folder), utc_now())
    except OSError as e:
        sys.stderr.write(f"gpu-fraction scheduler-certs: {e}\n")
        return 2
    return 0
