"""``gpu-fraction quota``: who uses GPUQuotas, and what would still fit."""

import argparse
from collections.abc import Mapping
from typing import Final

from gpu_fraction.cli import kubectl_flags, printing
from gpu_fraction.cli.config import Commands

DESCRIPTION: Final = """\
Show GPUQuotas, the pods that use them, and the largest share that would still fit.

FREE is what no pod has and no admitted pod has reserved. FITS is the largest share of one GPU that
the namespace's quotas allow and some card has free now, and BOUND says what ends it.

examples:
  gpu-fraction quota -n team-a     the quotas of a namespace
  gpu-fraction quota -A            those of all namespaces
  gpu-fraction quota budget -o json
"""


def add_parser(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add_parser("quota", description=DESCRIPTION)
    parser.add_argument("name", nargs="?", metavar="NAME", help="only the quota of this name")
    kubectl_flags.declare_watch(parser)
    kubectl_flags.declare(parser)
    printing.declare(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Run the command; the exit code."""
    # Imported here: --help needs no connection.
    from gpu_fraction.cli import quota_answer  # noqa: PLC0415

    return quota_answer.run(args, environ)
