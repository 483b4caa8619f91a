"""``gpu-fraction explain``: why a pod waits, was refused or does not run."""

import argparse
from collections.abc import Mapping
from typing import Final

from gpu_fraction.cli import kubectl_flags, printing
from gpu_fraction.cli.config import Commands

DESCRIPTION: Final = """\
Say how far a pod is, what holds it up, where that is seen, and what to do.

A pod that was refused does not exist: name its Deployment, ReplicaSet, StatefulSet, DaemonSet, Job
or CronJob. --what-if says what would happen to the pod with other annotations, as the cluster is
now: what the webhook says, whether the quotas have room, and on which card it would start.

Exit codes: 0 the pod runs (with --what-if: it would start now), 1 it waits or was refused,
2 there is no such object or no right to read it.

examples:
  gpu-fraction explain pod train
  gpu-fraction explain deployment/trainer -n team-a
  gpu-fraction explain pod train --what-if gpu-fraction=0.2
  gpu-fraction explain job/train --what-if gpu-memory=8Gi --what-if gpu-fraction-
  gpu-fraction explain pod train -o json
"""


def add_parser(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add_parser("explain", description=DESCRIPTION)
    parser.add_argument(
        "object",
        nargs="+",
        metavar="OBJECT",
        help="KIND NAME or KIND/NAME; a NAME alone is a pod's",
    )
    parser.add_argument(
        "--what-if",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="with this annotation, or without it (KEY-); may be repeated",
    )
    kubectl_flags.declare(parser, everywhere=False)
    printing.declare(parser, outputs=("table", "json", "yaml"))
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Run the command; the exit code."""
    # Imported here: --help needs no connection.
    from gpu_fraction.cli import explain_answer  # noqa: PLC0415

    return explain_answer.run(args, environ)
