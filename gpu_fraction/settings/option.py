"""Options and the sources of their values.

A flag takes precedence over the environment, then the file, then the default. All faults are
reported together, each with its source and the allowed values.
"""

import argparse
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from gpu_fraction.domain.problems import nearest, quote

ENV_PREFIX: Final = "GPU_FRACTION_"


class SettingsError(Exception):
    """The settings cannot be used.

    Attributes:
        errors: Every fault, one line each.
    """

    def __init__(self, errors: Iterable[str]) -> None:
        self.errors = tuple(errors)
        super().__init__("\n".join(self.errors))


@dataclass(frozen=True, slots=True)
class Option:
    """One setting.

    Attributes:
        name: Its key in the file; the flag is ``--with-dashes``, the variable
            ``GPU_FRACTION_UPPER_CASE``.
        parse: Converts text to the value; its ValueError names the allowed values.
        default: The default value.
        help: One line for users, without the unit.
        unit: The unit in words; empty for none.
        needed: Whether the setting is required.
        bare: The value of a flag without one; None where a value is required.
    """

    name: str
    parse: Callable[[str], Any]
    default: Any
    help: str
    unit: str = ""
    needed: bool = False
    bare: str | None = None

    @property
    def flag(self) -> str:
        """The flag on the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """The environment variable."""
        return ENV_PREFIX + self.name.upper()

    @property
    def allowed(self) -> str:
        """The allowed values, as the error message states them; empty where any text is."""
        try:
            self.parse("\0")
        except ValueError as e:
            return str(e).removeprefix("allowed: ")
        return ""

    @property
    def shown_default(self) -> str:
        """The default in the form of a flag; empty for none."""
        return _text(self.default)


@dataclass(frozen=True, slots=True)
class Value:
    """A value and its source: flag, environment, file or default."""

    value: Any
    source: str


def add_flags(parser: argparse.ArgumentParser, options: Iterable[Option], title: str) -> None:
    """Declare a flag for every option; absent flags are None."""
    group = parser.add_argument_group(title)
    for option in options:
        default = f"default {option.shown_default}" if option.shown_default else ""
        known = "; ".join(filter(None, (option.allowed, default)))
        group.add_argument(
            option.flag,
            dest=option.name,
            metavar="X",
            default=None,
            nargs="?" if option.bare is not None else None,
            const=option.bare,
            help=f"{option.help} ({known})" if known else option.help,
        )


def read_file(content: str, name: str) -> dict[str, Any]:
    """The settings file: a YAML mapping.

    Raises:
        SettingsError: not YAML, or not a mapping.
    """
    try:
        data = YAML(typ="safe", pure=True).load(io.StringIO(content))
    except (YAMLError, ValueError, RecursionError) as e:
        raise SettingsError([f"{name}: not YAML: {str(e).partition(chr(10))[0]}"]) from e
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise SettingsError([f"{name}: not a mapping; allowed: setting: value, one per line"])
    return data


def load(
    options: Sequence[Option],
    *,
    flags: Mapping[str, Any],
    environ: Mapping[str, str],
    file: Mapping[str, Any],
) -> dict[str, Value]:
    """Every option's value.

    Raises:
        SettingsError: with every fault of every source.
    """
    names = {option.name for option in options}
    errors = [
        f"file: unknown setting {quote(str(key))}{nearest(str(key), names)}"
        for key in file
        if key not in names
    ]
    values = {}
    for option in options:
        given, source = _given(option, flags, environ, file)
        if given is None:
            values[option.name] = Value(option.default, "default")
            continue
        try:
            values[option.name] = Value(option.parse(given), source)
        except ValueError as e:
            errors.append(f"{source}: {quote(given)} is invalid; {e}")
    if errors:
        raise SettingsError(errors)
    return values


def _given(
    option: Option, flags: Mapping[str, Any], environ: Mapping[str, str], file: Mapping[str, Any]
) -> tuple[str | None, str]:
    if (flag := flags.get(option.name)) is not None:
        return str(flag), f"flag {option.flag}"
    if (variable := environ.get(option.variable)) is not None:
        return variable, f"environment {option.variable}"
    if (value := file.get(option.name)) is not None:
        return _text(value), f"file {option.name}"
    return None, "default"


def _text(value: object) -> str:
    """A value in the form of a flag; a file can have lists and mappings."""
    if isinstance(value, dict):
        shown = {k: "+".join(map(str, v)) if isinstance(v, tuple) else v for k, v in value.items()}
        return ",".join(f"{key}={item}" for key, item in shown.items())
    if isinstance(value, frozenset):
        return ",".join(sorted(value))
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    if isinstance(value, Enum):
        return value.name.lower()
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)


def print_config(values: Mapping[str, Value]) -> str:
    """Every setting with its value and source, in the format of a settings file.

    No setting contains a secret: keys and tokens are given as file names.
    """
    lines = []
    for name, value in values.items():
        # Every JSON string is a YAML string.
        shown = "null" if value.value is None else json.dumps(_text(value.value))
        lines.append(f"{name}: {shown}  # {value.source.split(' ')[0]}")
    return "\n".join(lines) + "\n"
