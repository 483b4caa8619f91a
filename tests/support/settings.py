"""Settings as a command makes them of its sources."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from gpu_fraction.settings.declaration import build, options_of
from gpu_fraction.settings.option import load

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

D = TypeVar("D", bound="DataclassInstance")


def configured(cls: type[D], environ: Mapping[str, str] | None = None, **flags: Any) -> D:
    """The settings by these flags and this environment."""
    return build(cls, load(options_of(cls), flags=flags, environ=environ or {}, file={}))
