"""``kubectl_complete-gpu_fraction``: what kubectl runs to complete the plugin's command line.

It gets the words after ``kubectl gpu-fraction``, the last one as far as it is typed, and prints a
candidate a line with a tab and a description, then ``:`` and a number that tells the shell whether
to offer files. Source: kubernetes KEP-2379 and kubectl pkg/cmd/plugin/plugin_completion.go; the
numbers are those of github.com/spf13/cobra, ShellCompDirective.
"""

import argparse
import asyncio
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Final

from gpu_fraction.cli.main import COMMANDS, command_line

OFFER_FILES: Final = 0
NO_FILES: Final = 4

FILE_FLAGS: Final = frozenset({"kubeconfig", "filename", "config", "bundle", "report"})
"""Options whose value is a file."""

ASK_S: Final = 5.0
"""Seconds for the server to list names. Chosen: a person has pressed a key."""

_PROGRAM: Final = "kubectl gpu-fraction"


def main() -> int:
    """Print the candidates; never fails, because the shell shows what goes wrong."""
    found, directive = candidates(sys.argv[1:])
    for value, text in found:
        sys.stdout.write(f"{value}\t{text}\n" if text else f"{value}\n")
    sys.stdout.write(f":{directive}\n")
    return 0


def candidates(words: Sequence[str]) -> tuple[list[tuple[str, str]], int]:
    """What the last word can become, each with a description, and cobra's directive."""
    *before, typed = words or ("",)
    if not before:
        return _starting(COMMANDS.items(), typed), NO_FILES
    try:
        parser = _inner(command_line(_PROGRAM, before[:1]), before)
    except SystemExit:
        return [], NO_FILES
    option, given = _open_option(parser, before, typed)
    if option is None:
        flags = [(flag, _help(action)) for action in _actions(parser) for flag in _long(action)]
        words_here = [(word, "") for word in _positional(parser)]
        return _starting([*words_here, *flags], typed), NO_FILES
    if option.dest in FILE_FLAGS:
        return [], OFFER_FILES
    start = typed.removesuffix(given) if given != typed else ""
    values = _values(option, before)
    return [(f"{start}{value}", text) for value, text in _starting(values, given)], NO_FILES


def _starting(found: Iterable[tuple[str, str]], typed: str) -> list[tuple[str, str]]:
    return [(value, text) for value, text in found if value.startswith(typed)]


def _actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return parser._actions  # noqa: SLF001 - argparse has no other way to ask what it knows


def _long(action: argparse.Action) -> list[str]:
    return [flag for flag in action.option_strings if flag.startswith("--")]


def _help(action: argparse.Action) -> str:
    return (action.help or "").partition(" (default")[0].replace("%%", "%")


def _subcommands(
    parser: argparse.ArgumentParser,
) -> "argparse._SubParsersAction[argparse.ArgumentParser] | None":
    kind = argparse._SubParsersAction  # noqa: SLF001 - argparse names no other type
    return next((action for action in _actions(parser) if isinstance(action, kind)), None)


def _inner(parser: argparse.ArgumentParser, words: Iterable[str]) -> argparse.ArgumentParser:
    """The parser of the innermost command that the words name."""
    for word in words:
        actions = _subcommands(parser)
        if actions is not None and word in actions.choices:
            parser = actions.choices[word]
    return parser


def _positional(parser: argparse.ArgumentParser) -> list[str]:
    actions = _subcommands(parser)
    if actions is not None:
        return [*actions.choices]
    choices = (a.choices for a in _actions(parser) if not a.option_strings and a.choices)
    return [str(choice) for found in choices for choice in found]


def _open_option(
    parser: argparse.ArgumentParser, before: Sequence[str], typed: str
) -> tuple[argparse.Action | None, str]:
    """The option whose value is being typed, and what of it is there."""
    by_flag = {flag: action for action in _actions(parser) for flag in action.option_strings}
    flag, equals, value = typed.partition("=")
    if equals and flag in by_flag:
        return by_flag[flag], value
    last = by_flag.get(before[-1])
    takes = last is not None and last.nargs is None
    return (last, typed) if takes and not typed.startswith("-") else (None, typed)


def _values(option: argparse.Action, before: Sequence[str]) -> Iterable[tuple[str, str]]:
    if option.choices:
        return ((str(choice), "") for choice in option.choices)
    if option.dest == "namespace":
        try:
            return [(name, "") for name in asyncio.run(_namespaces(before))]
        except Exception:  # noqa: BLE001 - a completion that fails offers nothing
            return ()
    return ()


async def _namespaces(before: Sequence[str]) -> list[str]:
    # Imported here: most completions need no connection.
    from gpu_fraction.cli import asking, kubectl_flags  # noqa: PLC0415
    from gpu_fraction.kube.objects import Identity  # noqa: PLC0415
    from gpu_fraction.kube.resources import NAMESPACES  # noqa: PLC0415

    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    kubectl_flags.declare(parser)
    args, _ = parser.parse_known_args([*before[:-1]])
    async with asking.connected(args, os.environ, component="completion") as asked:
        found = await asked.client.list(NAMESPACES.at(), Identity, timeout_s=ASK_S)
    return [one.metadata.name for one in found.items]


if __name__ == "__main__":
    sys.exit(main())
