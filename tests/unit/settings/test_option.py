"""Options, and where their values come from."""

from typing import Any

import pytest

from gpu_fraction.settings import parsers
from gpu_fraction.settings.option import Option, SettingsError, Value, load, read_file

PORT = Option("port", parsers.integer(1, 65535), 9443, "port")
NAMES = Option("user_names", parsers.words, ("root",), "names")
WAIT = Option("wait", parsers.seconds(0, 60), 1.5, "seconds")
ALL = (PORT, NAMES, WAIT)


def loaded(
    flags: dict[str, Any] | None = None,
    environ: dict[str, str] | None = None,
    file: dict[str, Any] | None = None,
) -> dict[str, Value]:
    """The values from these sources."""
    return load(ALL, flags=flags or {}, environ=environ or {}, file=file or {})


def faults(**given: Any) -> list[str]:
    """Everything wrong with the sources."""
    with pytest.raises(SettingsError) as refused:
        loaded(**given)
    assert str(refused.value) == "\n".join(refused.value.errors)
    return list(refused.value.errors)


def test_defaults() -> None:
    """Where nothing is given."""
    assert loaded() == {
        "port": Value(9443, "default"),
        "user_names": Value(("root",), "default"),
        "wait": Value(1.5, "default"),
    }


def test_precedence() -> None:
    """Flag over environment over file over default; None of a flag or a file is absent."""
    flag, variable, line = {"port": "1"}, {"GPU_FRACTION_PORT": "2"}, {"port": 3}
    assert loaded(flag, variable, line)["port"] == Value(1, "flag --port")
    assert loaded({"port": None}, variable, line)["port"] == Value(
        2, "environment GPU_FRACTION_PORT"
    )
    assert loaded(None, None, line)["port"] == Value(3, "file port")
    assert loaded(None, None, {"port": None})["port"] == Value(9443, "default")


def test_names_of_an_option() -> None:
    """One word, three ways of writing it."""
    assert (NAMES.flag, NAMES.variable) == ("--user-names", "GPU_FRACTION_USER_NAMES")


def test_a_files_own_types() -> None:
    """Lists, numbers and truth as YAML has them."""
    assert loaded(file={"user_names": ["a", "b"]})["user_names"].value == ("a", "b")
    assert loaded(file={"wait": 2})["wait"].value == 2.0
    assert loaded(file={"wait": 2.5})["wait"].value == 2.5
    truth = Option("on", parsers.boolean, False, "on")
    assert load((truth,), flags={}, environ={}, file={"on": True})["on"].value is True


def test_other_variables_of_the_environment_are_left_alone() -> None:
    """Also those that merely look like ours: containers get GPU_FRACTION."""
    environ = {"GPU_FRACTION": "0.5", "GPU_FRACTION_NEW": "1", "PORT": "1"}
    assert loaded(environ=environ)["port"].source == "default"


def test_every_fault_at_once() -> None:
    """Of every source, with its place, what was given and what is allowed."""
    assert faults(
        flags={"wait": "61"},
        environ={"GPU_FRACTION_PORT": "none"},
        file={"user_nmaes": "a", "whatever": 1},
    ) == [
        'file: unknown setting "user_nmaes"; did you mean "user_names"?',
        'file: unknown setting "whatever"',
        (
            'environment GPU_FRACTION_PORT: "none" is invalid; '
            "allowed: a whole number from 1 to 65535"
        ),
        'flag --wait: "61" is invalid; allowed: seconds from 0 to 60',
    ]


@pytest.mark.parametrize("given", ["1", "65535", "09"])
def test_whole_numbers(given: str) -> None:
    """Within the range, both ends included."""
    assert loaded(flags={"port": given})["port"].value == int(given)


@pytest.mark.parametrize(
    "given",
    [
        "0",
        "65536",
        "-1",
        "+1",
        "1.0",
        "",
        " 1",
        "1 ",
        "1e3",
        "0x10",
        "٣",
        "²",
        "9" * 30,
        "0" * 25 + "99999",
        "0" * 25 + "1" * 25,
    ],
)
def test_no_whole_numbers(given: str) -> None:
    """Outside of it, or in any other form."""
    assert len(faults(flags={"port": given})) == 1


def test_leading_zeros_hide_no_number() -> None:
    """The range holds for the whole of it."""
    with pytest.raises(ValueError, match="from 0 to 9"):
        parsers.integer(0, 9)("0" * 25 + "99999")


@pytest.mark.parametrize(
    ("given", "value"), [("0", 0.0), ("60", 60.0), ("0.25", 0.25), ("1.", 1.0)]
)
def test_seconds(given: str, value: float) -> None:
    """Within the range, both ends included."""
    assert loaded(flags={"wait": given})["wait"].value == value


@pytest.mark.parametrize(
    "given", ["", ".", "-1", "60.1", "1e1", "nan", "inf", "1s", "1,5", "٣", "1.2.3"]
)
def test_no_seconds(given: str) -> None:
    """Units are not guessed."""
    assert len(faults(flags={"wait": given})) == 1


@pytest.mark.parametrize(
    ("parse", "good", "bad"),
    [
        (parsers.text, {"a": "a", " ": " "}, [""]),
        (parsers.boolean, {"true": True, "false": False}, ["", "True", "yes", "1"]),
        (parsers.choice("red", "green"), {"red": "red"}, ["", "Red", "blue"]),
        (parsers.words, {"": (), "a": ("a",), " a , b,": ("a", "b")}, []),
    ],
)
def test_other_forms(parse: Any, good: dict[str, Any], bad: list[str]) -> None:
    """Texts, truth, choices and lists."""
    for given, value in good.items():
        assert parse(given) == value
    for given in bad:
        with pytest.raises(ValueError, match=r"allowed: .+"):
            parse(given)


def test_a_near_choice_is_suggested() -> None:
    """As everywhere."""
    with pytest.raises(ValueError, match='allowed: native, hami; did you mean "native"'):
        parsers.choice("native", "hami")("natvie")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("", {}),
        ("# nothing\n", {}),
        ("a: 1\nb: [x]\n", {"a": 1, "b": ["x"]}),
        ('{"a": 1}', {"a": 1}),
    ],
)
def test_files(content: str, found: dict[str, Any]) -> None:
    """A YAML mapping; an empty file is one."""
    assert read_file(content, "f") == found


@pytest.mark.parametrize(
    "content",
    [
        "a",
        "- a",
        "42",
        "a: [",
        "a: 1\na: 2",
        "a: *b",
        "a: !!int x",
        "a: 2024-99-99",
        "\x00",
        "a: " + "[" * 600,
    ],
)
def test_what_is_no_settings_file(content: str) -> None:
    """Said with the file's name, never a crash."""
    with pytest.raises(SettingsError) as refused:
        read_file(content, "the-file")
    assert refused.value.errors[0].startswith("the-file: ")
