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
    """Names, lists, seconds and shares."""
    flags = {"cert_service": "hook", "cert_crds": "a, b", "cert_settle": "5.5"}
    flags |= {"cert_ca_renew_at": "0.6", "cert_dir": "/tls"}
    settings = load(option.load(OPTIONS, flags=flags, environ={}, file={}))
    assert settings.installation.service == "hook"
    assert settings.installation.crds == ("a", "b")
    assert settings.lifetimes.settle_s == 5.5
    assert settings.lifetimes.ca_renew_at == 0.6
    assert settings.directory == Path("/tls")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"cert_ca_renew_at": "1.5"}, "share of a life"),
        ({"cert_ca_renew_at": "soon"}, "share of a life"),
        ({"cert_settle": "0"}, "seconds from 1"),
        ({"cert_ca_life": "3600"}, "at most ca_life_s"),
    ],
)
def test_refusals(flags: dict[str, str], message: str) -> None:
    """The message says what is allowed."""
    with pytest.raises(option.SettingsError, match=message):
        load(option.load(OPTIONS, flags=flags, environ={}, file={}))
