"""The ``gpu-fraction`` command, and the kubectl plugin ``kubectl gpu-fraction``."""

import argparse
import importlib
import os
import sys
from collections.abc import Mapping
from pathlib import PurePath
from typing import Final, cast

COMMANDS: Final[Mapping[str, str]] = {
    "status": "show nodes, cards, slices and quotas of a cluster",
    "quota": "show who uses GPUQuotas, and what would still fit",
    "top": "show the measured use of slices",
    "explain": "say why a pod waits, was refused or does not run",
    "doctor": "check an installation, and say what to do about each fault",
    "selftest": "measure on a GPU node whether slices hold what they promise",
    "mutate": "rewrite manifests as the webhook would",
    "convert": "rewrite manifests of one GPU stack for another",
    "backends": "list GPU stacks; find those of a cluster",
    "webhook": "serve the admission webhook",
    "controller": "count the usage of GPUQuotas",
    "scheduler-extender": "serve kube-scheduler's extender calls",
    "scheduler-certs": "write the certificates of scheduler and extender",
    "node-daemon": "advertise and assign this node's GPU slices",
    "certs": "show or renew the webhook's certificates",
    "cleanup": "remove what an installation left on nodes",
    "demo": "play a story on a simulated cluster",
}
"""Modules of this package with their line in ``--help``. Only the module of the given command is
imported: a daemon does not load the libraries of the others, and help answers at once."""


def main() -> int:
    """Parse the arguments and run the command they name.

    Exit codes: 0 success, 1 a pod was refused or the API server failed, 2 the arguments, settings
    or cluster are unusable.
    """
    words = sys.argv[2:] if sys.argv[1:2] == ["--"] else sys.argv[1:]
    parser = command_line(program(sys.argv[0]), words[:1])
    args = parser.parse_args(words)
    # Imported here: the list of commands and their flags need none of it.
    from gpu_fraction.settings.option import SettingsError  # noqa: PLC0415

    try:
        return cast("int", args.run(args, os.environ))
    except SettingsError as e:
        for error in e.errors:
            sys.stderr.write(f"gpu-fraction: {error}\n")
        return 2
    except BrokenPipeError:
        # The reader closed the pipe (`| head`), which is not an error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130


def program(argv0: str) -> str:
    """The words that a user types to get here.

    Source: krew, "Best practices for writing kubectl plugins": a plugin's usage names kubectl.
    """
    return (
        "kubectl gpu-fraction" if PurePath(argv0).name.startswith("kubectl-") else "gpu-fraction"
    )


def command_line(prog: str, first: list[str]) -> argparse.ArgumentParser:
    """The parser of the command that the first argument names; without one, of the list.

    Args:
        prog: The words of the usage line.
        first: The first argument, if there is one.
    """
    parser = argparse.ArgumentParser(
        prog=prog,
        description="One pod annotation becomes the right slice of a GPU on Kubernetes.",
        epilog=f"Run {prog} COMMAND --help for details.",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    if first and first[0] in COMMANDS:
        module = importlib.import_module(f"gpu_fraction.cli.{first[0].replace('-', '_')}")
        module.add_parser(commands)
    else:
        for name, summary in COMMANDS.items():
            commands.add_parser(name, help=summary)
    for command in commands.choices.values():
        command.formatter_class = argparse.RawDescriptionHelpFormatter
        # Examples are indented; they start with the words that the user types.
        told = command.description or ""
        command.description = told.replace("\n  gpu-fraction ", f"\n  {prog} ")
    return parser


if __name__ == "__main__":
    sys.exit(main())
