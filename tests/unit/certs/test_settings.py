"""Every name and lifetime can be set, and what contradicts itself is refused."""

from pathlib import Path

import pytest

from certs.installation import Installation
from certs.lifetimes import Lifetimes
from certs.settings import OPTIONS, load
from gpu_fraction.settings import option


def test_the_defaults_are_the_documented_ones() -> None:
    """Without any setting, names and lifetimes are those of the classes."""
    settings = load(option.load(OPTIONS, flags={}, environ={}, file={}))
    assert settings.installation == Installation()
    assert settings.lifetimes == Lifetimes()
    assert settings.directory is None


def test_everything_can_be_set() -> None:
    """Names, lists and seconds; the Secret's name follows from the Service's."""
    flags = {"cert_service": "hook", "cert_mutating": "a, b", "cert_settle": "5.5"}
    flags |= {"cert_dir": "/tls"}
    settings = load(option.load(OPTIONS, flags=flags, environ={}, file={}))
    assert settings.installation.service == "hook"
    assert settings.installation.secret == "hook-ca"
    assert settings.installation.mutating == ("a", "b")
    assert settings.lifetimes.settle_s == 5.5
    assert settings.directory == Path("/tls")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"cert_settle": "0"}, "seconds from 1"),
        ({"cert_ca_life": "3600"}, "at most ca_life_s"),
    ],
)
def test_refusals(flags: dict[str, str], message: str) -> None:
    """The message says what is allowed."""
    with pytest.raises(option.SettingsError, match=message):
        load(option.load(OPTIONS, flags=flags, environ={}, file={}))
