"""Settings of a command: its flags, the environment and its ``--config`` file."""

import argparse
from collections.abc import Mapping
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from gpu_fraction.settings.declaration import build, options_of, titled
from gpu_fraction.settings.option import SettingsError, Value, add_flags, load, read_file

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

D = TypeVar("D", bound="DataclassInstance")

EPILOG: Final = """\
Every setting may be given as a flag, as a variable GPU_FRACTION_NAME or in the --config file
(YAML); the first of these wins."""


def declare(parser: argparse.ArgumentParser, cls: "type[DataclassInstance]") -> None:
    """Declare the flags of every setting, and that of the file."""
    parser.epilog = EPILOG
    parser.add_argument("--config", metavar="FILE", help="settings file, YAML")
    for title, settings_of_it in groupby(titled(cls), key=itemgetter(0)):
        add_flags(parser, (option for _, option in settings_of_it), title)


def values(
    cls: "type[DataclassInstance]", args: argparse.Namespace, environ: Mapping[str, str]
) -> dict[str, Value]:
    """Every setting's value and where it came from.

    Raises:
        SettingsError: the file cannot be read, or with every fault of every source.
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
    """The settings.

    Raises:
        SettingsError: see ``values``; or some contradict each other.
    """
    return build(cls, values(cls, args, environ))
