"""``gpu-fraction selftest``: do slices hold what they promise, on this node."""

import argparse
import sys
from collections.abc import Mapping
from typing import Final

from gpu_fraction.cli import kubectl_flags
from gpu_fraction.cli.config import Commands

DESCRIPTION: Final = """\
Measure on a GPU node whether slices hold what they promise: memory and compute of a quarter of a
card, alone and beside another slice that asks for more than its share, against a whole card.

The test makes Jobs in the namespace of -n, all on one card without any share, and removes
them. They take memory beyond their share: run it where nobody else computes. With simulated cards
it shows the steps and says that nothing was measured.

Not verified on real hardware yet; docs/gpu-results.md is where results go.

Exit codes: 0 all promises held, 1 a promise was broken or could not be measured, 2 could not ask.

examples:
  gpu-fraction selftest --node gpu-1 -n default
  gpu-fraction selftest --image registry.example.com/gpu-fraction:0.1.0 --report result.md
  gpu-fraction selftest --inside     in a container with a slice: measure, print JSON
"""

SECONDS: Final = 15.0


def add_parser(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add_parser("selftest", description=DESCRIPTION)
    parser.add_argument(
        "--inside",
        action="store_true",
        help="measure the slice of this container; the Jobs of the test run this",
    )
    parser.add_argument("--node", metavar="NAME", default="", help="the node (default: any)")
    parser.add_argument(
        "--image",
        metavar="IMAGE",
        default="",
        help="image of gpu-fraction (default: that of the node daemon)",
    )
    parser.add_argument(
        "--seconds",
        type=kubectl_flags.seconds(4, 120),
        default=SECONDS,
        metavar="SECONDS",
        help=f"time in which kernels run (default {SECONDS:g})",
    )
    parser.add_argument(
        "--report", metavar="FILE", help="also write a section for docs/gpu-results.md"
    )
    kubectl_flags.declare(parser, everywhere=False)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Run the command; the exit code."""
    if args.inside:
        return _inside(args.seconds)
    # Imported here: a container needs no connection.
    from gpu_fraction.cli import selftest_answer  # noqa: PLC0415

    return selftest_answer.run(args, environ)


def _inside(seconds: float) -> int:
    """Measure, and print one line of JSON; 1 where there is no GPU."""
    import msgspec  # noqa: PLC0415

    from gpu_fraction.selftest import inside  # noqa: PLC0415

    found = inside.main(seconds)
    sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
    if found.problem:
        sys.stderr.write(f"gpu-fraction selftest: {found.problem}\n")
    return int(bool(found.problem))
