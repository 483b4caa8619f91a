"""Options and where their values come from.

A flag beats the environment, which beats the file, which beats the default. Every fault is
reported at once, with the place it came from and what is allowed.
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
        parse: From text to the value; raises ValueError with what is allowed.
        default: The value where nothing is given.
        help: One line for people, without the unit.
        unit: Of the value, in words; empty where it has none.
        needed: Whether the program cannot start without it.
        bare: What the flag means without a value; None where it needs one.
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
        """The command line's name for it."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """The environment's name for it."""
        return ENV_PREFIX + self.name.upper()

    @property
    def allowed(self) -> str:
        """What a value may be, in the words of its refusal; empty where any text may be."""
        try:
            self.parse("\0")
        except ValueError as e:
            return str(e).removeprefix("allowed: ")
        return ""

    @property
    def shown_default(self) -> str:
        """The default as a flag would give it; empty where there is none."""
        return _text(self.default)


@dataclass(frozen=True, slots=True)
class Value:
    """A value and where it came from: flag, environment, file or default."""

    value: Any
    source: str


def add_flags(parser: argparse.ArgumentParser, options: Iterable[Option], title: str) -> None:
    """Declare a flag for every option; absent flags stay None."""
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
        raise SettingsError([f"{name}: must be a mapping of settings"])
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
            errors.append(f"{source}: {quote(given)} is refused; {e}")
    if errors:
        raise SettingsError(errors)
    return values


def _given(
    option: Option,
    flags: Mapping[str, Any],
    environ: Mapping[str, str],
    file: Mapping[str, Any],
) -> tuple[str | None, str]:
    if (flag := flags.get(option.name)) is not None:
        return str(flag), f"flag {option.flag}"
    if (variable := environ.get(option.variable)) is not None:
        return variable, f"environment {option.variable}"
    if (value := file.get(option.name)) is not None:
        return _text(value), f"file {option.name}"
    return None, "default"


def _text(value: object) -> str:
    """A value in the form that a flag gives it; a file has lists and mappings of its own."""
    if isinstance(value, dict):
        return ",".join(f"{key}={_joined(item)}" for key, item in value.items())
    if isinstance(value, frozenset):
        return ",".join(sorted(value))
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    if isinstance(value, Enum):
        return value.name.lower()
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)


def _joined(item: object) -> str:
    return "+".join(map(str, item)) if isinstance(item, tuple) else str(item)


def print_config(values: Mapping[str, Value]) -> str:
    """Every setting with its value and source, as a file that could be given back.

    No setting holds a secret: keys and tokens are named by their files.
    """
    lines = []
    for name, value in values.items():
        # A JSON string is a YAML string, whatever it holds.
        shown = "null" if value.value is None else json.dumps(_text(value.value))
        lines.append(f"{name}: {shown}  # {value.source.split(' ')[0]}")
    return "\n".join(lines) + "\n"
