"""``gpu-fraction cleanup``: takes away what an installation has left."""

import argparse
from collections.abc import Mapping
from typing import Final

from gpu_fraction.cli import kubectl_flags
from gpu_fraction.cli.config import Commands

DESCRIPTION: Final = """\
Remove what an installation leaves on Node objects, after it was uninstalled.

These are the labels, annotations, capacity and allocatable amounts whose names begin with
gpu-fraction.dev/. The command refuses while a node daemon is installed, which would write them
again. Files on the nodes are not removed: docs/installation.md names them.

examples:
  gpu-fraction cleanup --nodes --dry-run    only show what would be removed
  gpu-fraction cleanup --nodes
"""


def add_parser(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add_parser("cleanup", description=DESCRIPTION)
    parser.add_argument(
        "--nodes", action="store_true", required=True, help="clean the Node objects"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="show what would be removed, and change nothing"
    )
    kubectl_flags.declare(parser, everywhere=False)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Run the command; the exit code."""
    # Imported here: --help needs no connection.
    from gpu_fraction.cli import cleanup_nodes  # noqa: PLC0415

    return cleanup_nodes.run(args, environ)
