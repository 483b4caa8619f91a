"""The ``gpu-fraction`` command, called as a shell would."""

import io
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from ruamel.yaml import YAML

from gpu_fraction.cli.main import main


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
