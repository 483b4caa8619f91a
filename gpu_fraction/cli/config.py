"""Loads the settings of a command from flags, environment and ``--config`` file."""

import argparse
from collections.abc import Mapping
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

from gpu_fraction.settings.declaration import build, options_of, titled
from gpu_fraction.settings.option import SettingsError, Value, add_flags, load, read_file

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001 - argparse names no other type
"""The parsers of the program's commands."""

D = TypeVar("D", bound="DataclassInstance")

EPILOG: Final = """\
Every setting can be a flag, an environment variable GPU_FRACTION_NAME or a key in the --config
file (YAML), in this order of precedence."""


def declare(parser: argparse.ArgumentParser, cls: "type[DataclassInstance]") -> None:
    """Declare a flag for every setting, and ``--config``."""
    parser.epilog = EPILOG
    parser.add_argument("--config", metavar="FILE", help="settings file, YAML")
    for title, settings_of_it in groupby(titled(cls), key=itemgetter(0)):
        add_flags(parser, (option for _, option in settings_of_it), title)


def values(
    cls: "type[DataclassInstance]", args: argparse.Namespace, environ: Mapping[str, str]
) -> dict[str, Value]:
    """Every setting's value with its source.

    Raises:
        SettingsError: the file is unreadable, or settings are invalid; lists all faults.
    """
    file = {}
    if args.config is not None:
        try:
            content = Path(args.config).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as e:
            raise SettingsError([f"--config {args.config}: {e}"]) from e
        file = read_file(content, args.config)
    return load(options_of(cls), flags=vars(args), environ=environ, file=file)


def settings(cls: type[D], args: argparse.Namespace, environ: Mapping[str, str]) -> D:
    """Load the settings.

    Raises:
        SettingsError: as ``values``, or settings contradict each other.
    """
    return build(cls, values(cls, args, environ))
