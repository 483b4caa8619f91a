"""For a machine with a real NVIDIA GPU; everything here is skipped, with the reason, elsewhere.

Run alone: ``pytest tests/gpu -rs``. The fake GPUs of other tests share pynvml's process-wide
library, so a run that has loaded them skips these.

Nothing here changes a setting of a card: no compute mode, no MIG, no reset. Limits are set on
cgroups of our own, which are removed.
"""

import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from gpu_fraction.node_daemon.cards import nvml, nvml_driver
from gpu_fraction.node_daemon.cards.nvml_device import Device
from gpu_fraction.node_daemon.cards.nvml_driver import Driver

PROGRAM = pathlib.Path(__file__).with_name("cuda_program.py")


@pytest.fixture(scope="session")
def driver() -> Driver:
    """The real driver."""
    if "gpu-fraction-nvml" in pathlib.Path("/proc/self/maps").read_text():
        pytest.skip("fake GPUs are loaded in this process: run `pytest tests/gpu` alone")
    try:
        found = nvml_driver.open_driver()
    except nvml.NvmlUnavailableError as e:
        pytest.skip(f"no NVIDIA driver: {e}")
    if not found.count():
        pytest.skip("the driver has no GPU")
    return found


@pytest.fixture
def device(driver: Driver) -> Device:
    """The first card."""
    return driver.device(0)


@pytest.fixture
def cuda(device: Device) -> Callable[..., dict[str, Any]]:
    """Runs the CUDA program on the first card; what it printed."""
    if device.mig_enabled():
        pytest.skip("the first card is in MIG mode: engines are for whole cards")

    def run(*words: object, env: Mapping[str, str] | None = None, cgroup: str = "") -> Any:
        enter = f"echo $$ > {cgroup}/cgroup.procs && " if cgroup else ""
        arguments = " ".join(map(str, words))
        done = subprocess.run(
            ["sh", "-c", f"{enter}exec {sys.executable} {PROGRAM} {arguments}"],
            env={**os.environ, "CUDA_VISIBLE_DEVICES": device.uuid(), **(env or {})},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if "no libcuda" in done.stdout:
            pytest.skip("no libcuda.so.1 on this machine")
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run


@pytest.fixture
def record(request: pytest.FixtureRequest, driver: Driver) -> Callable[..., None]:
    """Prints a measured figure with driver and card, and appends it to ``$GPU_RESULTS``."""

    def write(**figures: object) -> None:
        line = json.dumps(
            {
                "test": request.node.name,
                "driver": driver.version(),
                "card": driver.device(0).name(),
                **figures,
            }
        )
        print(line)
        if path := os.environ.get("GPU_RESULTS"):
            with pathlib.Path(path).open("a") as file:
                file.write(line + "\n")

    return write
