"""What the command says about itself: enough to work from."""

from typing import Any

import pytest

from gpu_fraction.cli import mutate, webhook
from gpu_fraction.cli.main import COMMANDS
from gpu_fraction.settings.declaration import options_of
from tests.unit.cli.conftest import Command


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_the_commands_are_named(command: Command, flag: str) -> None:
    """Each with a line on what it is for."""
    result = command(flag)
    assert (result.code, result.err) == (0, "")
    for name in COMMANDS:
        assert f"\n    {name}" in result.out


@pytest.mark.parametrize(
    ("name", "settings", "flags"),
    [
        ("mutate", mutate.Settings, ("-f", "--filename", "-o", "--output", "--color", "--config")),
        ("webhook", webhook.Settings, ("--config", "--print-config")),
    ],
)
def test_every_flag_is_explained(
    command: Command, name: str, settings: type[Any], flags: tuple[str, ...]
) -> None:
    """With its meaning and its default."""
    result = command(name, "--help")
    assert (result.code, result.err) == (0, "")
    words = " ".join(result.out.split())
    for flag in flags:
        assert f"{flag}" in words
    options = options_of(settings)
    for option in options:
        value = "[X]" if option.bare else "X"
        assert f"{option.flag} {value} " in words, option.name
        assert option.help.strip() in words, option.name
    assert "example" in words
    assert len(result.out.splitlines()) > len(options)


def test_the_webhooks_help_names_the_environment_and_the_file(command: Command) -> None:
    """A container has no command line that a person types."""
    words = command("webhook", "--help").out
    assert "GPU_FRACTION_" in words
    assert "--config" in words
    assert "SIGTERM" in words


@pytest.mark.parametrize(
    "words",
    [
        ("controller",),
        ("node-daemon", "--node-name", "n"),
        ("scheduler-extender", "--tls-cert=c", "--tls-key=k", "--token-file=t"),
        ("certs", "status"),
    ],
    ids=lambda words: words[0],
)
def test_without_a_cluster_it_says_which_flag_names_one(
    command: Command, words: tuple[str, ...]
) -> None:
    """Nobody's own kubeconfig is taken for that of a program of the cluster."""
    result = command(*words)
    assert (result.code, result.out) == (2, "")
    assert "--kubeconfig is required outside a cluster" in result.err
