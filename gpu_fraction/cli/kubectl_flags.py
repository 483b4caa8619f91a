"""Flags of commands that ask a cluster on behalf of a person.

Names and meaning are kubectl's (kubectl options, v1.37), so that the plugin behaves as users of
kubectl expect. Imports nothing that --help can do without.
"""

import argparse
import re
from collections.abc import Callable
from typing import Final

TIMEOUT_S: Final = 15.0
"""Seconds for a request. Chosen: a person waits, and 10,000 pods take a few seconds."""

NO_LIMIT_S: Final = 3600.0
"""Stands for ``--request-timeout=0``. Chosen: no answer takes an hour."""

EVERY_S: Final = 5.0
"""Seconds between readings. Chosen: fast enough to watch a pod start, and a reading lists pods."""

_DURATION: Final = re.compile(r"(?:([0-9]{1,4})h)?(?:([0-9]{1,5})m)?(?:([0-9]{1,6})s?)?", re.ASCII)


def declare(parser: argparse.ArgumentParser, *, everywhere: bool = True) -> None:
    """Declare kubectl's flags for the cluster, the user and the namespace.

    Args:
        parser: The command's.
        everywhere: Whether the command can look at all namespaces.
    """
    group = parser.add_argument_group("cluster, as for kubectl")
    group.add_argument("-n", "--namespace", metavar="NAME", help="namespace (default: context's)")
    if everywhere:
        group.add_argument(
            "-A", "--all-namespaces", action="store_true", help="show all namespaces"
        )
    for flags, metavar, text in (
        (("--kubeconfig",), "FILE", "kubeconfig file (default: $KUBECONFIG or ~/.kube/config)"),
        (("--context",), "NAME", "context of the kubeconfig"),
        (("--cluster",), "NAME", "cluster of the kubeconfig"),
        (("--user",), "NAME", "user of the kubeconfig"),
        (("-s", "--server"), "URL", "address of the API server"),
        (("--token",), "TOKEN", "bearer token for the API server"),
        (("--as",), "USER", "user to impersonate"),
    ):
        group.add_argument(*flags, metavar=metavar, default="", help=text)
    group.add_argument(
        "--as-group",
        metavar="GROUP",
        action="append",
        default=[],
        help="group to impersonate, with --as; may be repeated",
    )
    group.add_argument(
        "--request-timeout",
        metavar="TIME",
        type=_timeout_s,
        default=TIMEOUT_S,
        help=f"time for a request: 30, 10s, 1m; 0 for no limit (default {TIMEOUT_S:g}s)",
    )


def _timeout_s(text: str) -> float:
    match = _DURATION.fullmatch(text)
    if match is None or not text:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time; allowed: 30, 10s, 1m, 0")
    hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return float(hours * 3600 + minutes * 60 + seconds) or NO_LIMIT_S


def declare_watch(parser: argparse.ArgumentParser) -> None:
    """Declare ``--watch``."""
    parser.add_argument(
        "-w",
        "--watch",
        nargs="?",
        type=seconds(1, 3600),
        const=EVERY_S,
        metavar="SECONDS",
        help=f"again every SECONDS (default {EVERY_S:g}) until Ctrl-C; on a terminal in place, "
        "elsewhere on each change",
    )


def seconds(least: int, most: int) -> Callable[[str], float]:
    """The type of an argument in seconds, from ``least``, above 0, to ``most``."""

    def parse(text: str) -> float:
        try:
            found = float(text)
        except ValueError:
            found = 0.0
        if not least <= found <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not {least} to {most} seconds")
        return found

    return parse
