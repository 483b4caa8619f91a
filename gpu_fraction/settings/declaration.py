"""Settings as fields of dataclasses: the single declaration of each setting.

A field gives a setting its name, type and unit (``_s``, ``_mib``, ``_milli``); :func:`setting`
adds the parser, the default and the help. The flag, the environment variable, the file key, the
help and the documentation page are derived from it.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from gpu_fraction.settings.option import Option, SettingsError, Value

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

NEEDED: Final[Any] = object()
"""The default of a required setting."""

_KEY: Final = "setting"
_UNITS: Final = {"_s": "seconds", "_mib": "MiB", "_milli": "thousandths"}

T = TypeVar("T")
D = TypeVar("D", bound="DataclassInstance")


@dataclass(frozen=True, slots=True)
class _Group:
    """A nested dataclass of settings."""

    cls: "type[DataclassInstance]"
    title: str
    prefix: str


def setting(
    parse: Callable[[str], T],
    default: T,
    help: str,  # noqa: A002 - as argparse calls it
    *,
    name: str = "",
    bare: str | None = None,
) -> T:
    """Declare a dataclass field as a setting.

    Args:
        parse: Converts text to the value; its ValueError names the allowed values.
        default: The default; ``NEEDED`` for a required setting.
        help: One line for users, without the unit.
        name: The key in the file; by default the field's name without ``_s``.
        bare: The value of a flag without one; None where a value is required.
    """
    needed = default is NEEDED
    metadata = {_KEY: Option(name, parse, None if needed else default, help, "", needed, bare)}
    if needed:
        return cast("T", field(metadata=metadata))
    return field(default_factory=lambda: default, metadata=metadata)


def group(cls: type[D], title: str = "", *, prefix: str = "") -> D:
    """Declare a dataclass field as a group of settings.

    Args:
        cls: The dataclass of the group.
        title: The heading in the help; empty for the previous heading.
        prefix: The prefix of the names.
    """
    return field(default_factory=cls, metadata={_KEY: _Group(cls, title, prefix)})


def options_of(cls: "type[DataclassInstance]") -> tuple[Option, ...]:
    """Every setting of a dataclass and its groups."""
    return tuple(option for _, option in titled(cls))


def titled(
    cls: "type[DataclassInstance]", title: str = "", prefix: str = ""
) -> Iterator[tuple[str, Option]]:
    """Every setting of a dataclass and its groups, with its heading."""
    for _, member in _members(cls, prefix):
        if isinstance(member, Option):
            yield title, member
        else:
            title = member.title or title
            yield from titled(member.cls, title, member.prefix)


def build(cls: type[D], values: Mapping[str, Value], prefix: str = "") -> D:
    """Build the dataclass from values.

    Raises:
        SettingsError: a setting is missing, or some contradict each other.
    """
    given: dict[str, Any] = {}
    missing = []
    for name, member in _members(cls, prefix):
        if isinstance(member, _Group):
            given[name] = build(member.cls, values, member.prefix)
            continue
        given[name] = values[member.name].value
        if member.needed and given[name] is None:
            missing.append(f"{member.flag} is required: {member.help}")
    if missing:
        raise SettingsError(missing)
    try:
        return cls(**given)
    except ValueError as e:
        raise SettingsError([str(e)]) from e


def _members(cls: "type[DataclassInstance]", prefix: str) -> Iterator[tuple[str, Option | _Group]]:
    for one in fields(cls):
        member = one.metadata.get(_KEY)
        if isinstance(member, _Group):
            yield one.name, replace(member, prefix=prefix + member.prefix)
        elif isinstance(member, Option):
            name = prefix + (member.name or one.name.removesuffix("_s"))
            unit = next((u for suffix, u in _UNITS.items() if one.name.endswith(suffix)), "")
            yield one.name, replace(member, name=name, unit=unit)
