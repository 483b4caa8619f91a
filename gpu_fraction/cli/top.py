"""``gpu-fraction top``: the measured use of slices."""

import argparse
from collections.abc import Mapping
from typing import Final

from gpu_fraction.cli import kubectl_flags, printing
from gpu_fraction.cli.config import Commands

DESCRIPTION: Final = """\
Show what slices really use, as the node daemons measure it with NVML.

USED is memory that a container's processes hold, of the LIMIT that it was given. BUSY is the part
of the last sample in which its kernels ran. FOREIGN is memory of processes outside pods. A dash
means that the daemon does not say, or was not reached; the reason stands below the table.

The metrics are read through the API server, which needs the right to get pods/proxy in the
namespace of the daemons. Inside the cluster's network, --direct reads them from the daemons' own
addresses instead.

examples:
  gpu-fraction top -n team-a             slices of a namespace
  gpu-fraction top -A --sort=-used       the largest first
  gpu-fraction top --by card             cards, with memory that no pod accounts for
  gpu-fraction top --watch
"""


def add_parser(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add_parser("top", description=DESCRIPTION)
    parser.add_argument(
        "--by",
        choices=("slice", "card"),
        default="slice",
        help="rows: slice, card (default slice)",
    )
    parser.add_argument(
        "--sort", metavar="COLUMN", default="", help="sort by a column; --sort=-COLUMN downwards"
    )
    parser.add_argument(
        "--direct", action="store_true", help="read the daemons' own addresses, without a proxy"
    )
    kubectl_flags.declare_watch(parser)
    kubectl_flags.declare(parser)
    printing.declare(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Run the command; the exit code."""
    # Imported here: --help needs no connection.
    from gpu_fraction.cli import top_answer  # noqa: PLC0415

    return top_answer.run(args, environ)
