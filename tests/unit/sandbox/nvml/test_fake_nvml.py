"""The stand-in library itself: complete for what the daemon calls, clean C, and scriptable."""

import ctypes
import inspect
import os
import pathlib
import re
import subprocess
import sys

import pynvml
import pytest

from gpu_fraction.sandbox.nvml import __main__ as command
from gpu_fraction.sandbox.nvml import build
from gpu_fraction.sandbox.nvml.hardware import VARIABLE, FakeHardware
from tests.support import fake_gpus

ROOT = pathlib.Path(__file__).parents[4]


def calls_of_the_daemon() -> set[str]:
    """Every pynvml function that the daemon's modules name."""
    sources = "".join(p.read_text() for p in (ROOT / "node_daemon" / "cards").glob("nvml*.py"))
    names = set(re.findall(r"pynvml\.(nvml[A-Z]\w+)", sources))
    return {name for name in names if inspect.isfunction(getattr(pynvml, name))}


def symbols_of(function: str) -> set[str]:
    """The library's symbols behind a pynvml function, those of functions it calls included."""
    source = inspect.getsource(inspect.unwrap(getattr(pynvml, function)))
    found = set(re.findall(r'_nvmlGetFunctionPointer\("(\w+)"\)', source))
    for name in re.findall(r"^    (?:return )?(nvml\w+)\(", source, re.MULTILINE):
        found |= symbols_of(name)
    return found


@pytest.mark.parametrize("function", sorted(calls_of_the_daemon()))
def test_every_call_of_the_daemon_is_there(function: str) -> None:
    """A missing symbol would pass for an old driver."""
    try:
        library = ctypes.CDLL(str(build.build()))
    except build.CompileError as e:
        pytest.skip(str(e))
    symbols = symbols_of(function)
    assert symbols
    assert [name for name in symbols if not hasattr(library, name)] == []


def test_the_source_compiles_without_a_warning(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With warnings as errors, from scratch."""
    fake_gpus.plug_in(tmp_path)  # skips where there is no compiler
    monkeypatch.setattr(build, "FLAGS", (*build.FLAGS, "-Werror", f"-DRUN={os.getpid()}"))
    assert build.build(tmp_path / "lib") == tmp_path / "lib" / build.NAME
    assert ctypes.CDLL(str(tmp_path / "lib" / build.NAME)).nvmlShutdown() == 1


def test_no_compiler_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Instead of a trace of the subprocess module."""
    monkeypatch.setattr(build, "FLAGS", (*build.FLAGS, f"-DNONE={os.getpid()}"))
    with pytest.raises(build.CompileError, match="no compiler 'nonesuch'"):
        build.build(compiler="nonesuch")


def test_another_process_sees_the_cards_and_their_changes(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command prints the environment; its other forms change what a running program sees."""
    fake_gpus.plug_in(tmp_path)
    place = str(tmp_path / "node")
    command.main([place, "create", "--cards", "3", "--mig-cards", "1"])
    printed = capsys.readouterr().out.splitlines()
    environment = dict(line.split("=", 1) for line in printed if line[0] != "#")
    names = [line.split()[1] for line in printed if line[0] == "#"]
    program = (
        "import pynvml as n, sys\n"
        "n.nvmlInit()\n"
        "s = n.nvmlEventSetCreate()\n"
        "h = n.nvmlDeviceGetHandleByIndex(1)\n"
        "n.nvmlDeviceRegisterEvents(h, n.nvmlEventTypeXidCriticalError, s)\n"
        "print(n.nvmlDeviceGetCount(), n.nvmlDeviceGetUUID(h), flush=True)\n"
        "print(n.nvmlEventSetWait_v2(s, 10000).eventData, flush=True)\n"
        "sys.stdin.readline()\n"
        "try: n.nvmlDeviceGetUUID(h)\n"
        "except n.NVMLError as e: print(e.value, flush=True)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline().split() == ["3", names[1]]
        command.main([place, "xid", names[1], "79"])
        assert child.stdout.readline() == "79\n"
        command.main([place, "lose", names[1]])
        child.stdin.write("\n")
        child.stdin.flush()
        assert child.stdout.readline() == f"{pynvml.NVML_ERROR_GPU_IS_LOST}\n"


def test_the_command_changes_what_is_asked(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recovery action, failing calls, and healing."""
    hardware = fake_gpus.plug_in(tmp_path)
    driver = fake_gpus.use(hardware, monkeypatch)
    place, name = str(hardware.directory), fake_gpus.uuid(0)
    command.main([place, "recovery", name, "2"])
    assert driver.device(0).recovery_action() == 2
    command.main([place, "fail", "nvmlDeviceGetName", "999", "--card", name])
    command.main([place, "hang", "nvmlDeviceGetName", "--card", "GPU-none"])
    assert len(FakeHardware(hardware.directory).machine.faults) == 2
    command.main([place, "heal"])
    command.main([place, "lose", name])
    command.main([place, "restore", name])
    assert driver.device(0).name() == "NVIDIA H100 80GB HBM3"
    assert os.environ[VARIABLE] == place


def test_an_unknown_card_is_said(tmp_path: pathlib.Path) -> None:
    """By its name."""
    hardware = FakeHardware(tmp_path)
    with pytest.raises(KeyError, match="GPU-none"):
        hardware.card("GPU-none")
