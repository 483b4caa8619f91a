"""``gpu-fraction doctor``: what is wrong with an installation, and what to do."""

import argparse
from collections.abc import Mapping
from typing import Final

from gpu_fraction.cli import kubectl_flags, printing
from gpu_fraction.cli.config import Commands

DESCRIPTION: Final = """\
Check an installation, or a cluster before one. Each fault is shown with the object and the field
where it was seen, why it matters, what to do, and the section of docs/operations.md about it.

Nothing is changed: the one pod that is created is a dry run, in the namespace of -n. What you may
not read is named, and the other checks are made.

Exit codes: 0 nothing failed, 1 something failed (with --strict also warnings), 2 could not ask.

examples:
  gpu-fraction doctor --before              a cluster without gpu-fraction
  gpu-fraction doctor                       an installation
  gpu-fraction doctor --wait=300            until nothing fails, for scripts
  gpu-fraction doctor --print-fixes         the commands alone
  gpu-fraction doctor --bundle report.json --hash-names   for a bug report
"""

OUTPUTS: Final = ("text", "wide", "json")

WAIT_S: Final = 120.0
"""Chosen: images are pulled and certificates made within a minute."""


def add_parser(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add_parser("doctor", description=DESCRIPTION)
    parser.add_argument(
        "--before", action="store_true", help="only the checks of a cluster without gpu-fraction"
    )
    parser.add_argument(
        "--wait",
        nargs="?",
        type=kubectl_flags.seconds(1, 86400),
        const=WAIT_S,
        metavar="SECONDS",
        help=f"check again until nothing fails, at most SECONDS (default {WAIT_S:g})",
    )
    parser.add_argument("--strict", action="store_true", help="warnings count as failures")
    parser.add_argument(
        "--print-fixes", action="store_true", help="print what to do about each fault, alone"
    )
    parser.add_argument(
        "--bundle",
        metavar="FILE",
        help="also write what a bug report needs: versions, statuses, events; no secrets (JSON)",
    )
    parser.add_argument(
        "--hash-names", action="store_true", help="with --bundle: replace names by hashes"
    )
    kubectl_flags.declare(parser, everywhere=False)
    output = parser.add_argument_group("output")
    output.add_argument(
        "-o",
        "--output",
        choices=OUTPUTS,
        default="text",
        help=f"format: {', '.join(OUTPUTS)} (default text); wide also shows what is right",
    )
    printing.declare_colour(output)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Run the command; the exit code."""
    # Imported here: --help needs no connection.
    from gpu_fraction.cli import doctor_answer  # noqa: PLC0415

    return doctor_answer.run(args, environ)
