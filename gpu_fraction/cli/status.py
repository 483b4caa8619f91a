"""``gpu-fraction status``: nodes, cards, slices and quotas of a cluster."""

import argparse
from collections.abc import Mapping
from typing import Final

from gpu_fraction.cli import kubectl_flags, printing
from gpu_fraction.cli.config import Commands

DESCRIPTION: Final = """\
Show the GPUs of a cluster: what is given of each card, to whom, and what is free.

USED is the larger of the given compute and memory. FREE is the largest share that still fits, and
the free memory; a card that takes no pods says why instead. WHOLE counts untouched cards, and
LARGEST is the largest share that one card has free.

Cards are always those of the whole cluster; -n and -A choose pods and namespaces. What you may not
read is named below the table, and the rest is shown.

examples:
  gpu-fraction status                      one line a card
  gpu-fraction status --by pod -A          who holds what
  gpu-fraction status --by node -l pool=a  nodes with a label
  gpu-fraction status --sort=-free         the emptiest cards first
  gpu-fraction status --watch              again every 5 seconds
  gpu-fraction status -o json              everything, for programs
"""

BY: Final = ("card", "node", "model", "namespace", "pod")


def add_parser(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add_parser("status", description=DESCRIPTION)
    parser.add_argument(
        "--by", choices=BY, default="card", help=f"rows: {', '.join(BY)} (default card)"
    )
    parser.add_argument(
        "-l",
        "--selector",
        metavar="LABELS",
        default="",
        help="only nodes, or with --by pod or namespace only pods, with these labels",
    )
    parser.add_argument("--model", metavar="NAME", default="", help="only cards of this model")
    parser.add_argument(
        "--sort",
        metavar="COLUMN",
        default="",
        help="sort by a column; --sort=-COLUMN downwards",
    )
    kubectl_flags.declare_watch(parser)
    kubectl_flags.declare(parser)
    printing.declare(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Run the command; the exit code."""
    # Imported here: --help needs no connection.
    from gpu_fraction.cli import status_answer  # noqa: PLC0415

    return status_answer.run(args, environ)
