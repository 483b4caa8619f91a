"""``gpu-fraction mutate``: refusals, files that cannot be read, and settings."""

import re
from pathlib import Path

import pytest

from gpu_fraction.domain.backends import BACKENDS
from tests.unit.cli.conftest import Command
from tests.unit.cli.manifests import NOTEBOOK, manifest


def test_one_line_for_every_refusal_and_nothing_printed(command: Command, tmp_path: Path) -> None:
    """Of every pod of every file, each with its place."""
    (tmp_path / "a.yaml").write_text(NOTEBOOK + "---\n" + NOTEBOOK.replace("0.25", "9.5"))
    (tmp_path / "b.yaml").write_text(
        NOTEBOOK.replace("name: notebook", "generateName: gen-")
        .replace("gpu-fraction:", "gpu-fractions:")
        .replace("spec:\n", "spec:\n  nodeName: n\n")
    )
    result = command("mutate", "-f", tmp_path)
    assert (result.code, result.out) == (1, "")
    refusals = [line for line in result.err.splitlines() if not line.startswith("Warning: ")]
    assert [re.sub(r": (?=[\"n]).*", "", line) for line in refusals] == [
        f"{tmp_path}/a.yaml:2 Pod/notebook: metadata.annotations[gpu-fraction]",
        f"{tmp_path}/b.yaml:1 Pod/gen-: metadata.annotations[gpu-fractions]",
        f"{tmp_path}/b.yaml:1 Pod/gen-: spec.nodeName",
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: [", "-:1: not YAML: "),
        ("a: 1\nb: 2\na: 3\n", "-:3: not YAML: "),
        ("a: *nowhere\n", "-:1: not YAML: "),
        ("a: \x00\n", "-: not YAML: "),
        ("a: 1\n  b: 2\n", "-:2: not YAML: "),
        ("a: " + "[" * 600, "-"),
        ("a: !!timestamp 99\n", "-"),
        ("a: 2024-99-99\n", "-"),
    ],
)
def test_what_is_no_yaml(command: Command, text: str, told: str) -> None:
    """With the file and the line, exit code 2."""
    result = command("mutate", "-f", "-", stdin=text)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(told)
    assert "Traceback" not in result.err


def test_files_that_cannot_be_read(command: Command, tmp_path: Path) -> None:
    """Missing, not text, an empty folder: said in a line, exit code 2."""
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    empty = tmp_path / "empty"
    empty.mkdir()
    for name, told in (
        (tmp_path / "none.yaml", "No such file"),
        (tmp_path / "bytes.yaml", "codec can't decode"),
        (empty, "contains no .yaml, .yml, .json file"),
    ):
        result = command("mutate", "-f", name)
        assert (result.code, result.out) == (2, "")
        assert result.err.startswith(f"{name}: ")
        assert told in result.err


# Settings.


def test_a_namespace_among_the_manifests_chooses_its_backend(command: Command) -> None:
    """Where the settings allow it, as its label would in the cluster."""
    text = (
        "kind: Namespace\nmetadata: {name: team-h, labels: {gpu-fraction.dev/backend: hami}}\n"
        f"---\n{manifest('Pod', namespace='team-h')}\n---\n{manifest('Pod')}\n"
    )
    allowed = command("mutate", "-f", "-", "--namespace-backends", "hami,nvidia", stdin=text)
    _, chosen, default = allowed.documents()
    assert chosen["spec"]["schedulerName"] == "hami-scheduler"
    assert default["spec"]["schedulerName"] == "gpu-fraction-scheduler"
    _, chosen, _ = command("mutate", "-f", "-", stdin=text).documents()
    assert chosen["spec"]["schedulerName"] == "gpu-fraction-scheduler"


def test_a_pod_selects_its_backend_where_the_settings_allow_it(command: Command) -> None:
    """As in the cluster; else the refusal names the field in the file."""
    chosen = '"annotations": {"gpu-fraction.dev/backend": "hami", '
    text = manifest("Pod").replace('"annotations": {', chosen)
    flags = ("mutate", "-f", "-", "--namespace-backends", "hami")
    allowed = command(*flags, "--allow-pod-backend", "true", stdin=text)
    assert allowed.document()["spec"]["schedulerName"] == "hami-scheduler"
    refused = command(*flags, stdin=text)
    assert refused.code == 1
    assert "metadata.annotations[gpu-fraction.dev/backend]: " in refused.err
    assert refused.err.endswith("(cluster setting allow_pod_backend)\n")


@pytest.mark.parametrize("metadata", ["x", "[]", "{name: n, labels: x}", "{name: n, labels: [x]}"])
def test_an_odd_namespace_is_no_crash(command: Command, metadata: str) -> None:
    """It chooses nothing."""
    result = command("mutate", "-f", "-", stdin=f"kind: Namespace\nmetadata: {metadata}\n")
    assert result.code == 0


def test_flags_environment_and_file(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flag beats the environment, which beats the file."""
    config = tmp_path / "config.yaml"
    config.write_text("gpu_memory_mib: 4096\nbackend: nvidia\n")

    def memory(*arguments: object) -> str:
        text = NOTEBOOK
        found = command(
            "mutate", "-f", "-", "--config", config, "--backend", "native", *arguments, stdin=text
        )
        limits = found.document()["spec"]["containers"][0]["resources"]["limits"]
        return str(limits["gpu-fraction.dev/memory-mib"])

    assert memory() == "1024"
    monkeypatch.setenv("GPU_FRACTION_GPU_MEMORY_MIB", "8192")
    assert memory() == "2048"
    assert memory("--gpu-memory-mib", "16384") == "4096"


def test_settings_that_contradict_each_other(command: Command) -> None:
    """Both are named, before any pod is looked at."""
    flags = ("--backend", "hami", "--left-to-schedulers", "hami-scheduler")
    result = command("mutate", "-f", "-", *flags, stdin=NOTEBOOK)
    assert (result.code, result.out) == (2, "")
    assert result.err == (
        "gpu-fraction: --left-to-schedulers contains hami-scheduler, the scheduler of "
        "--backend hami; remove one of the two\n"
    )


def test_settings_that_cannot_be_used(command: Command, tmp_path: Path) -> None:
    """All at once, each with its source, exit code 2."""
    config = tmp_path / "config.yaml"
    config.write_text("bakend: hami\nmax_cards: none\n")
    result = command("mutate", "-f", "-", "--config", config, "--backend", "kia", stdin=NOTEBOOK)
    assert (result.code, result.out) == (2, "")
    assert result.err.splitlines() == [
        'gpu-fraction: file: unknown setting "bakend"; did you mean "backend"?',
        'gpu-fraction: flag --backend: "kia" is invalid; allowed: '
        + ", ".join(BACKENDS)
        + '; did you mean "kai"?',
        'gpu-fraction: file max_cards: "none" is invalid; allowed: a whole number from 1 to 1024',
    ]
    missing = command("mutate", "-f", "-", "--config", tmp_path / "none.yaml", stdin=NOTEBOOK)
    assert missing.code == 2
    assert missing.err.startswith(f"gpu-fraction: --config {tmp_path}/none.yaml: ")


@pytest.mark.parametrize(
    "arguments",
    [(), ("mutate",), ("mutate", "-f", "-", "-o", "xml"), ("nonsense",), ("mutate", "--x")],
)
def test_a_command_that_cannot_run(command: Command, arguments: tuple[str, ...]) -> None:
    """Says how it is used, exit code 2."""
    result = command(*arguments)
    assert (result.code, result.out) == (2, "")
    assert "usage: gpu-fraction" in result.err
