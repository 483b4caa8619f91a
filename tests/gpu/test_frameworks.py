"""Frameworks keep to the part that the variables tell them: nothing else limits them here."""

import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable

import pytest

from gpu_fraction.domain import frameworks
from gpu_fraction.domain.units import MILLI
from gpu_fraction.node_daemon.cards.nvml_device import Device

PROGRAM = pathlib.Path(__file__).with_name("framework_program.py")
PART_MILLI = 100
Record = Callable[..., None]


@pytest.mark.parametrize("name", ["torch", "jax", "cupy"])
def test_a_framework_stops_at_its_part(name: str, device: Device, record: Record) -> None:
    """It asks for twice its share of an otherwise free card, and gets no more than the part."""
    if device.mig_enabled():
        pytest.skip("the first card is in MIG mode: an instance shows its own memory")
    total_mib = device.memory().total >> 20
    share_mib = total_mib * PART_MILLI // MILLI
    told = frameworks.variables(PART_MILLI, total_mib)
    done = subprocess.run(
        [sys.executable, str(PROGRAM), name, str(2 * share_mib)],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": device.uuid(), **told},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    if "absent" in found:
        pytest.skip(f"{name}: {found['absent']}")
    record(part=told["GPU_MEMORY_FRACTION"], share_mib=share_mib, **found)
    assert 0 < found["taken_mib"] <= share_mib
