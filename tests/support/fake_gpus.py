"""Gives a test fake GPUs behind the real pynvml, in the test's own process."""

import ctypes
import pathlib
import time
from collections.abc import Callable, Sequence

import pytest

from gpu_fraction.domain.assignment import CardShare
from gpu_fraction.domain.request import Isolation
from gpu_fraction.domain.root_user import NOT_KNOWN
from gpu_fraction.node_daemon.cards import nvml_driver
from gpu_fraction.node_daemon.cards.nvml_driver import Driver
from gpu_fraction.node_daemon.state.allocation import Binding, PodUid
from gpu_fraction.sandbox.nvml import build
from gpu_fraction.sandbox.nvml.hardware import VARIABLE, FakeCard, FakeHardware, FakeInstance

DEADLINE_S = 10.0
"""Of each NVML call: long, because the machine that runs the tests may be busy."""
HASTY_S = 0.5
"""Of each NVML call in tests that make calls hang."""


def uuid(index: int) -> str:
    """Name of the card at that position."""
    return f"GPU-{index:08d}-1111-2222-3333-444444444444"


def bound(
    uid: str,
    container: str,
    shares: Sequence[CardShare],
    isolation: Isolation = "preferred",
    root_risk: str = NOT_KNOWN,
) -> Binding:
    """A container and its shares, of a pod whose name does not matter."""
    return Binding("ns", "pod", PodUid(uid), container, tuple(shares), isolation, root_risk)


def mig_uuid(card: int, instance: int) -> str:
    """Name of a MIG instance."""
    return f"MIG-{card:04d}{instance:04d}-1111-2222-3333-444444444444"


def whole_card(index: int, **fields: object) -> FakeCard:
    """An H100 at that position."""
    made = FakeCard(uuid=uuid(index), pci=f"00000000:{0x1B + index:02X}:00.0", minor=index)
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def mig_card(index: int, instances: int = 7) -> FakeCard:
    """An H100 in MIG mode with that many 1g.10gb instances."""
    made = whole_card(index, mig=True)
    made.instances = [FakeInstance(uuid=mig_uuid(index, gi), gi=gi + 1) for gi in range(instances)]
    return made


def plug_in(directory: pathlib.Path, cards: int = 2) -> FakeHardware:
    """Make the hardware; the environment variable must name the directory while it is used."""
    try:
        # pynvml opens the library by name, and the loader gives it one that is loaded already.
        library = ctypes.CDLL(str(build.build()))
    except build.CompileError as e:
        pytest.skip(f"the fake GPUs need a C compiler: {e}")
    while library.nvmlShutdown() == 0:
        pass  # earlier tests of this process have left it open
    hardware = FakeHardware(directory / "gpus")
    hardware.cards[:] = [whole_card(index) for index in range(cards)]
    hardware.apply()
    return hardware


def use(
    hardware: FakeHardware, monkeypatch: pytest.MonkeyPatch, deadline_s: float = DEADLINE_S
) -> Driver:
    """The driver of that hardware, for the rest of the test."""
    monkeypatch.setenv(VARIABLE, str(hardware.directory))
    return nvml_driver.open_driver(deadline_s)


def eventually(condition: Callable[[], bool], within_s: float = 20.0) -> bool:
    """True as soon as the condition holds, False where it does not within the time."""
    end = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True
