"""``gpu-fraction backends``: what each backend supports, from its own description."""

import json

import pytest

from gpu_fraction.domain.backends import BACKENDS
from tests.unit.cli.conftest import Command


@pytest.mark.parametrize("words", [("backends",), ("backends", "list")])
def test_every_backend_is_listed(command: Command, words: tuple[str, ...]) -> None:
    """With its product and units, in a terminal's width; the action may be left out."""
    result = command(*words)
    assert (result.code, result.err) == (0, "")
    listed = result.out.split("\n\n")
    for text, (name, stack) in zip(listed, BACKENDS.items(), strict=True):
        first, memory, *_ = text.splitlines()
        assert first == f"{name} ({stack.about.title})"
        about = stack.about
        assert memory == f"  memory: {about.memory}; isolation: {about.memory_isolation}"
    assert max(map(len, result.out.splitlines())) <= 110


@pytest.mark.parametrize("words", ["backends -o json", "backends list -o json"])
def test_the_list_for_programs(command: Command, words: str) -> None:
    """The flag stands before the action or after it."""
    found = {one["name"]: one for one in json.loads(command(*words.split()).out)}
    assert list(found) == list(BACKENDS)
    hami = found["hami"]
    assert (hami["title"], hami["scheduler"]) == ("HAMi", "hami-scheduler")
    assert (hami["memoryIsolation"], hami["computeIsolation"]) == ("soft", "soft")
    assert hami["chooses"] == ["models", "cards", "placement"]
    assert found["nvidia"]["chooses"] == []
    assert found["kai"]["settings"][0]["flag"] == "--kai-queue"


def test_one_backend_is_shown_with_pods(command: Command) -> None:
    """YAML that can be applied, the rest as comments."""
    result = command("backends", "show", "hami")
    assert (result.code, result.err) == (0, "")
    assert "# hami: HAMi\n" in result.out
    assert "#   pods below: on GPUs of 16384 MiB (--gpu-memory-mib)\n" in result.out
    pods = [pod for pod in result.documents() if pod is not None]
    limits = [pod["spec"]["containers"][0]["resources"]["limits"] for pod in pods]
    assert [one["nvidia.com/gpu"] for one in limits] == ["1", "1", "2", "1"]
    assert limits[0]["nvidia.com/gpumem-percentage"] == "25"
    assert limits[1]["nvidia.com/gpumem"] == "4096"


def test_what_a_backend_refuses_is_shown(command: Command) -> None:
    """In the words of the refusal."""
    result = command("backends", "show", "nvidia", "-o", "json")
    quarter, *_, whole = json.loads(result.out)["examples"]
    assert quarter["annotations"] == {"gpu-fraction": "0.25"}
    assert "this cluster gives whole GPUs only" in quarter["refused"][0]
    assert "pod" not in quarter
    assert whole["pod"]["spec"]["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": "1"}
    assert "# refused: metadata.annotations[gpu-fraction]: container main asks for a part" in (
        command("backends", "show", "nvidia").out
    )


@pytest.mark.parametrize("name", BACKENDS)
def test_every_backend_can_be_shown(command: Command, name: str) -> None:
    """As text and for programs; every unverified fact and setting is named."""
    text = command("backends", "show", name)
    shown = json.loads(command("backends", "show", name, "-o", "json").out)
    assert text.code == 0
    for fact in shown["unverified"]:
        assert fact in text.out
    for one in shown["settings"]:
        assert one["flag"] in text.out
    assert all(("pod" in one) != ("refused" in one) for one in shown["examples"])


def test_the_settings_of_the_cluster_count(command: Command) -> None:
    """Sizes and the stacks' own settings."""
    result = command("backends", "show", "kai", "--gpu-memory-mib", "80Gi", "--kai-queue", "q")
    assert "on GPUs of 81920 MiB" in result.out
    assert "kai.scheduler/queue: q" in result.out
    by_model = command("backends", "show", "hami", "--gpu-memory-by-model", "A100=40Gi")
    assert "pods below: on GPUs of the configured sizes" in by_model.out


def test_an_unknown_backend(command: Command) -> None:
    """The known ones are listed."""
    result = command("backends", "show", "hamy")
    assert result.code == 2
    assert "hami" in result.err
