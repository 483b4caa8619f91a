"""``gpu-fraction demo``: the product in half a minute, without a cluster, a GPU or a compiler."""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from gpu_fraction.cli.config import Commands

DESCRIPTION: Final = """\
Play a story on a cluster in this process: two teams share simulated cards, a quota refuses, a card
falls sick, certificates rotate. Webhook, controller, certificates, scheduler extender and node
daemon are the real ones. API server, kube-scheduler, kubelets, containers and cards are simulated.

examples:
  gpu-fraction demo
  gpu-fraction demo --keep          # then try it with kubectl
  gpu-fraction demo --reviews       # in a checkout: examples, and recorded reviews
"""


def add_parser(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add_parser("demo", description=DESCRIPTION)
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument(
        "--keep", action="store_true", help="keep the cluster running for kubectl, until Ctrl-C"
    )
    kind.add_argument(
        "--reviews",
        action="store_true",
        help="show the examples as diffs, and post recorded reviews to the webhook, instead",
    )
    parser.add_argument(
        "--examples",
        default="examples",
        metavar="DIR",
        help="with --reviews: folder of the example manifests (default examples)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Run the command; the exit code."""
    # Imported here: --help must work without the demo's own distribution.
    if args.reviews:
        from gpu_fraction.cli.demo import reviews  # noqa: PLC0415

        return reviews.run(Path(args.examples), environ)
    if sys.platform != "linux":
        sys.stderr.write(
            "gpu-fraction demo: the node daemon runs on Linux alone; use a container or a virtual "
            "machine, or --reviews\n"
        )
        return 2
    try:
        from gpu_fraction.cli.demo import play  # noqa: PLC0415
    except ModuleNotFoundError as e:
        sys.stderr.write(
            f"gpu-fraction demo: {e.name} is not installed; pip install 'gpu-fraction[demo]'\n"
        )
        return 2
    return play.run(keep=args.keep)
