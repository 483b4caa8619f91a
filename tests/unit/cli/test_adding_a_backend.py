"""A backend is one module and one page of examples: docs/adding-a-backend.md, done.

Its data for ``backends detect`` is a file in tests/data/detect, if it has any.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from gpu_fraction.domain.backends import BACKENDS

ROOT = Path(__file__).parents[3]
TOY = ROOT / "tests" / "data" / "toy"
PARTS = ("deploy", "docs", "examples", "gpu_fraction", "scripts", "tests")
POD = """\
apiVersion: v1
kind: Pod
metadata: {name: p, annotations: {gpu-fraction: "0.25"}}
spec: {containers: [{name: main, image: busybox}]}
"""
NODE = """\
kind: Node
metadata: {name: n}
status: {capacity: {toy.example/gpu-milli: 4k}}
"""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository with the toy backend's two files put into it, and nothing else changed."""
    made = tmp_path_factory.mktemp("checkout")
    for part in PARTS:
        shutil.copytree(ROOT / part, made / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", made)
    added = [file.relative_to(TOY) for file in TOY.rglob("*.*") if "__pycache__" not in file.parts]
    assert sorted(map(str, added)) == [
        "docs/backends/toy.yaml",
        "gpu_fraction/domain/backends/toy.py",
    ]
    for file in added:
        assert not (made / file).exists()
        shutil.copy(TOY / file, made / file)
    page = python(made, "scripts.generate_backends")
    (made / "docs" / "backends.md").write_text(page, encoding="utf-8")
    return made


def python(checkout: Path, *arguments: str, stdin: str = "") -> str:
    """What a program of the checkout prints."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith("GPU_FRACTION_")}
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=checkout,
        env={**environ, "PYTHONPATH": str(checkout)},
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_its_examples_and_the_webhooks_conditions_hold(checkout: Path) -> None:
    """Rewriting, validation and quota by its page; conversion; no page is old."""
    tests = (
        "unit/cli/test_backends_page.py",
        "unit/cli/test_convert.py",
        "property/test_conversion.py",
        "unit/cli/test_configuration_page.py",
        "unit/domain/test_backend_examples.py",
        "unit/webhook/test_manifests.py",
    )
    others = " or ".join(f"[{name}" for name in BACKENDS)  # they pass or fail without the toy
    printed = python(
        checkout,
        "pytest",
        "-vv",
        "-k",
        f"toy or not ({others})",
        "-n",
        "0",
        "-p",
        "no:cacheprovider",
        *(f"tests/{test}" for test in tests),
    )
    assert "test_an_annotated_pod[toy-0] PASSED" in printed
    assert "test_a_pod_written_by_hand[toy-0] PASSED" in printed
    assert "test_there_and_back[toy] PASSED" in printed
    assert "## toy\n" in (checkout / "docs" / "backends.md").read_text(encoding="utf-8")


def test_the_command_line_knows_it(checkout: Path) -> None:
    """In the help, in what it makes of a pod, and in the list of backends."""
    command = ("gpu_fraction.cli.main", "mutate")
    assert "toy" in python(checkout, *command, "--help")
    printed = python(checkout, *command, "--backend", "toy", "-f", "-", stdin=POD)
    spec = YAML(typ="safe").load(printed)["spec"]
    assert spec["schedulerName"] == "toy-scheduler"
    assert spec["containers"][0]["resources"]["limits"] == {"toy.example/gpu-milli": "250"}
    assert "\ntoy " in python(checkout, "gpu_fraction.cli.main", "backends")
    found = python(checkout, "gpu_fraction.cli.main", "backends", "detect", "-f", "-", stdin=NODE)
    assert "Settings: --backend toy\n" in found
