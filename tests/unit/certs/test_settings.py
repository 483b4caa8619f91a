"""Every name and lifetime can be set, and what contradicts itself is refused."""

from pathlib import Path

import pytest

from gpu_fraction.certs.lifetimes import Lifetimes
from gpu_fraction.certs.settings import Installation, ServingSettings
from gpu_fraction.settings.option import SettingsError
from tests.support.settings import configured


def test_the_defaults_are_the_documented_ones() -> None:
    """Without any setting, names and lifetimes are those of the classes."""
    settings = configured(ServingSettings)
    assert settings.shared.installation == Installation()
    assert settings.shared.lifetimes == Lifetimes()
    assert settings.directory is None


def test_everything_can_be_set() -> None:
    """Names, lists and seconds; the Secret's name follows from the Service's."""
    flags = {"cert_service": "hook", "cert_mutating": "a, b", "cert_settle": "5.5"}
    flags |= {"cert_dir": "/tls"}
    settings = configured(ServingSettings, **flags)
    assert settings.shared.installation.service == "hook"
    assert settings.shared.installation.secret == "hook-ca"
    assert settings.shared.installation.mutating == ("a", "b")
    assert settings.shared.lifetimes.settle_s == 5.5
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
    with pytest.raises(SettingsError, match=message):
        configured(ServingSettings, **flags)
