"""Fake cards for the tests of what reads and limits them."""

import pathlib

import pytest

from gpu_fraction.node_daemon.cards.nvml_driver import Driver
from gpu_fraction.sandbox.nvml.hardware import FakeHardware
from tests.support import fake_gpus


@pytest.fixture
def hardware(tmp_path: pathlib.Path) -> FakeHardware:
    """Two cards."""
    return fake_gpus.plug_in(tmp_path)


@pytest.fixture
def driver(hardware: FakeHardware, monkeypatch: pytest.MonkeyPatch) -> Driver:
    """Their driver."""
    return fake_gpus.use(hardware, monkeypatch)


@pytest.fixture
def hasty(hardware: FakeHardware, monkeypatch: pytest.MonkeyPatch) -> Driver:
    """Their driver, with a short deadline: for calls that hang."""
    return fake_gpus.use(hardware, monkeypatch, fake_gpus.HASTY_S)
