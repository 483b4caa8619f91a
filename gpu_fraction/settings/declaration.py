"""Settings as fields of dataclasses: the one place that says what a setting is.

A field gives a setting its name, its type and its unit (``_s``, ``_mib``, ``_milli``);
:func:`setting` adds the parser, the default and the help. Flag, environment variable, file key,
help and the page of the documentation follow from it.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from gpu_fraction.settings.option import Option, SettingsError, Value

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

NEEDED: Final[Any] = object()
"""The default of a setting that must be given."""

_KEY: Final = "setting"
_UNITS: Final = {"_s": "seconds", "_mib": "MiB", "_milli": "thousandths"}

T = TypeVar("T")
D = TypeVar("D", bound="DataclassInstance")


@dataclass(frozen=True, slots=True)
class _Group:
    """Settings that are a dataclass of their own."""

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
    """A dataclass field that people can set.

    Args:
        parse: From text to the value; raises ValueError with what is allowed.
        default: The value where nothing is given; ``NEEDED`` where there is none.
        help: One line for people, without the unit.
        name: The file's key; the field's name without ``_s`` where it is not given.
        bare: What the flag means without a value; None where it needs one.
    """
    needed = default is NEEDED
    metadata = {_KEY: Option(name, parse, None if needed else default, help, "", needed, bare)}
    if needed:
        return cast("T", field(metadata=metadata))
    return field(default_factory=lambda: default, metadata=metadata)


def group(cls: type[D], title: str = "", *, prefix: str = "") -> D:
    """A dataclass field that holds further settings.

    Args:
        cls: Their dataclass.
        title: The heading in the help; empty for that of the settings before.
        prefix: What their names begin with.
    """
    return field(default_factory=cls, metadata={_KEY: _Group(cls, title, prefix)})


def options_of(cls: "type[DataclassInstance]") -> tuple[Option, ...]:
    """Every setting of a dataclass and of the groups in it."""
    return tuple(option for _, option in titled(cls))


def titled(
    cls: "type[DataclassInstance]", title: str = "", prefix: str = ""
) -> Iterator[tuple[str, Option]]:
    """The same, each with its heading."""
    for _, member in _members(cls, prefix):
        if isinstance(member, Option):
            yield title, member
        else:
            title = member.title or title
            yield from titled(member.cls, title, member.prefix)


def build(cls: type[D], values: Mapping[str, Value], prefix: str = "") -> D:
    """The dataclass with these values.

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
            missing.append(f"{member.flag} is needed: {member.help}")
    if missing:
        raise SettingsError(missing)
    try:
        return cls(**given)
    except ValueError as e:
        raise SettingsError([str(e)]) from e


def _members(cls: "type[DataclassInstance]", prefix: str) -> Iterator[tuple[str, Option | _Group]]:
    """The fields that are settings or groups, each with its whole name or prefix."""
    for one in fields(cls):
        member = one.metadata.get(_KEY)
        if isinstance(member, _Group):
            yield one.name, replace(member, prefix=prefix + member.prefix)
        elif isinstance(member, Option):
            name = prefix + (member.name or one.name.removesuffix("_s"))
            unit = next((u for suffix, u in _UNITS.items() if one.name.endswith(suffix)), "")
            yield one.name, replace(member, name=name, unit=unit)
