"""Settings of a command: its flags, the environment and its ``--config`` file."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from gpu_fraction.settings.option import Option, SettingsError, Value, load, read_file

__all__ = ["load_options"]


def load_options(
    options: Sequence[Option], args: argparse.Namespace, environ: Mapping[str, str]
) -> dict[str, Value]:
    """Every option's value.

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
    return load(options, flags=vars(args), environ=environ, file=file)
