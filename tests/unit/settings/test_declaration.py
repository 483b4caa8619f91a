"""Settings that are declared as fields of dataclasses."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from gpu_fraction.settings.declaration import NEEDED, group, options_of, setting, titled
from gpu_fraction.settings.option import SettingsError, load, print_config, read_file
from gpu_fraction.settings.parsers import integer, seconds, text, words
from tests.support.settings import configured


@dataclass(frozen=True, slots=True)
class Waits:
    """Two settings, both optional."""

    least_s: float = setting(seconds(0, 60), 1.5, "how long at least")
    size_mib: int = setting(integer(0, 9), 3, "how much")
    pace: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.least_s > self.size_mib:
            raise ValueError(f"--wait-least {self.least_s:g} is above {self.size_mib}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """A command's."""

    name: str = setting(text, NEEDED, "this one's name")
    waits: Waits = group(Waits, "waits", prefix="wait_")
    order: tuple[str, ...] = setting(words, ("b", "a"), "which first", name="sequence")


def faults(**flags: Any) -> list[str]:
    """What is wrong with these flags."""
    with pytest.raises(SettingsError) as refused:
        configured(Settings, **flags)
    return list(refused.value.errors)


def test_a_field_is_flag_variable_key_and_unit() -> None:
    """The name without ``_s``, behind the prefix of its group; or one of its own."""
    found = [(o.name, o.flag, o.variable, o.unit) for o in options_of(Settings)]
    assert found == [
        ("name", "--name", "GPU_FRACTION_NAME", ""),
        ("wait_least", "--wait-least", "GPU_FRACTION_WAIT_LEAST", "seconds"),
        ("wait_size_mib", "--wait-size-mib", "GPU_FRACTION_WAIT_SIZE_MIB", "MiB"),
        ("sequence", "--sequence", "GPU_FRACTION_SEQUENCE", ""),
    ]


def test_values_reach_the_fields() -> None:
    """Those of groups too; fields that are no settings keep their defaults."""
    made = configured(
        Settings, {"GPU_FRACTION_WAIT_SIZE_MIB": "9"}, name="n", wait_least="2", sequence="x,y"
    )
    assert made == Settings(name="n", waits=Waits(2.0, 9, []), order=("x", "y"))


def test_defaults_are_those_of_the_class() -> None:
    """Whoever makes an object gets what a command gets."""
    assert configured(Settings, name="n") == Settings(name="n")
    assert Waits() == Waits(1.5, 3)


def test_groups_have_headings() -> None:
    """For the help; a setting behind a group stands under its heading."""
    assert [(title, option.name) for title, option in titled(Settings, "all")] == [
        ("all", "name"),
        ("waits", "wait_least"),
        ("waits", "wait_size_mib"),
        ("waits", "sequence"),
    ]


def test_a_setting_that_is_needed_is_asked_for() -> None:
    """By its flag and its meaning."""
    assert faults() == ["--name is required: this one's name"]


def test_a_contradiction_is_an_error_of_the_settings() -> None:
    """In the words of the class."""
    assert faults(name="n", wait_least="5") == ["--wait-least 5 is above 3"]


def test_what_is_allowed_is_what_a_refusal_says() -> None:
    """The help and the documentation cannot say anything else."""
    allowed = {option.name: option.allowed for option in options_of(Settings)}
    assert allowed == {
        "name": "",
        "wait_least": "seconds from 0 to 60",
        "wait_size_mib": "a whole number from 0 to 9",
        "sequence": "",
    }
    assert faults(name="n", wait_least="61") == [
        f'flag --wait-least: "61" is invalid; allowed: {allowed["wait_least"]}'
    ]


def test_the_order_of_a_list_survives_printing() -> None:
    """It means something: directories by priority, engines by preference."""
    options = options_of(Settings)
    printed = print_config(load(options, flags={}, environ={}, file={}))
    again = load(options, flags={}, environ={}, file=read_file(printed, "printed"))
    assert again["sequence"].value == ("b", "a")
