"""The ``gpu-fraction`` command, called as a shell would."""

import io
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from gpu_fraction.cli.main import main
from tests.cluster.harness.binaries import find_binaries


@dataclass(frozen=True)
class Result:
    """What a call left."""

    code: int
    out: str
    err: str

    def documents(self) -> list[Any]:
        """The output as plain data, read by nothing of ours."""
        return list(YAML(typ="safe", pure=True).load_all(self.out))

    def document(self) -> Any:
        """The only one."""
        (found,) = self.documents()
        return found


Command = Callable[..., Result]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run ``gpu-fraction`` with these arguments."""
    for name in os.environ:
        if name.startswith("GPU_FRACTION_"):
            monkeypatch.delenv(name)

    def run(*arguments: object, stdin: str = "") -> Result:
        monkeypatch.setattr(sys, "argv", ["gpu-fraction", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        try:
            code = main()
        except SystemExit as e:
            code = e.code if isinstance(e.code, int) else 1
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def rendered() -> Callable[[Path], list[dict[str, Any]]]:
    """What ``kubectl apply -k`` of a folder would send."""
    kubectl = find_binaries().paths.get("kubectl")
    if kubectl is None:
        pytest.skip("no kubectl on this machine: `make cluster-assets` builds it")

    def render(folder: Path) -> list[dict[str, Any]]:
        done = subprocess.run(
            [kubectl, "kustomize", str(folder)],
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return list(YAML(typ="safe").load_all(done.stdout))

    return render
