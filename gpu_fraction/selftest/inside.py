"""What runs in a slice: take more memory and compute than promised, and say how much that gave."""

import ctypes
import os
import platform
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

import msgspec

from gpu_fraction.domain import keys
from gpu_fraction.selftest.cuda import MIB, ROUNDS

STEP_MIB: Final = 64
"""Memory is taken in such pieces. Chosen: a limit is found within 1 % of a small slice."""

BEYOND_MIB: Final = 2048
"""How much more than the promise is tried. Chosen: enough to see a limit, and not all of a card
that others may use."""

BLOCKS_PER_PROCESSOR: Final = 2
"""Blocks of 1024 threads that fill a multiprocessor. Source: CUDA C++ Programming Guide, technical
specifications: 2048 threads on data-centre cards."""


class Card(Protocol):
    """A card as CUDA shows it; ``cuda.Cuda`` is one and has the meaning of each."""

    def allocate(self, size_bytes: int) -> int:
        """Take memory."""
        ...

    def free(self, address: int) -> None:
        """Give it back."""
        ...

    def memory(self) -> tuple[int, int]:
        """Free and total, MiB."""
        ...

    def processors(self) -> int:
        """Multiprocessors."""
        ...

    def kernel(self, name: str) -> ctypes.c_void_p:
        """A kernel."""
        ...

    def launch(self, function: ctypes.c_void_p, blocks: int, *values: ctypes.c_uint64) -> None:
        """Run it to its end."""
        ...


class Measured(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What one container measured.

    Attributes:
        problem: Why nothing was measured; empty where something was.
        simulated: Whether its cards do not exist.
        kernel: The node's Linux kernel.
        driver: The driver's version, as NVML says it; empty where NVML is not there.
        card: The card's name, likewise.
        nvml_total_mib: The card's memory by NVML; 0 where unknown.
        nvml_used_mib: Memory in use by NVML while this container held ``got_mib``; 0 likewise.
        total_mib: The card's memory as CUDA shows it to the container.
        promised_mib: What the container was told (``GPU_MEMORY_LIMIT_MIB``); 0 for nothing.
        tried_mib: How much it wanted.
        got_mib: How much it got.
        processors: Multiprocessors that it may use.
        launches: Kernels finished in each second, by Unix time.
        env: The variables of the slice.
    """

    problem: str = ""
    simulated: bool = False
    kernel: str = ""
    driver: str = ""
    card: str = ""
    nvml_total_mib: int = 0
    nvml_used_mib: int = 0
    total_mib: int = 0
    promised_mib: int = 0
    tried_mib: int = 0
    got_mib: int = 0
    processors: int = 0
    launches: dict[int, int] = {}
    env: dict[str, str] = {}


def measure(
    open_card: Callable[[], Card],
    environ: Mapping[str, str],
    *,
    seconds: float,
    clock: Callable[[], float] = time.time,
    nvml: Callable[[], dict[str, Any]] | None = None,
) -> Measured:
    """Measure this container's slice.

    Args:
        open_card: Opens the first visible card.
        environ: The container's variables.
        seconds: How long kernels run.
        clock: Unix time.
        nvml: Facts of the card by NVML; by default those of the library, where it is there.

    Raises:
        NoCudaError, CudaError: as ``open_card`` and the card raise them.
    """
    read = _nvml if nvml is None else nvml
    if environ.get(keys.SIMULATED_VARIABLE):
        return Measured(simulated=True, kernel=platform.release(), env=_told(environ))
    card = open_card()
    _, total_mib = card.memory()
    promised = environ.get(keys.MEMORY_VARIABLE, "").split(",")[0]
    promised_mib = int(promised) if promised.isdecimal() else 0
    tried_mib = min(total_mib, promised_mib or total_mib) + BEYOND_MIB
    held: list[int] = []
    while len(held) * STEP_MIB < tried_mib and (address := card.allocate(STEP_MIB * MIB)):
        held.append(address)
    facts = read()  # while it is held
    for address in held:
        card.free(address)
    return Measured(
        kernel=platform.release(),
        total_mib=total_mib,
        promised_mib=promised_mib,
        tried_mib=tried_mib,
        got_mib=len(held) * STEP_MIB,
        processors=card.processors(),
        launches=_launches(card, seconds, clock),
        env=_told(environ),
        **facts,
    )


def _launches(card: Card, seconds: float, clock: Callable[[], float]) -> dict[int, int]:
    """Kernels finished in each second; each kernel fills all of the processors it may use."""
    result = card.allocate(MIB)
    function = card.kernel("work")
    blocks = card.processors() * BLOCKS_PER_PROCESSOR
    values = ctypes.c_uint64(ROUNDS), ctypes.c_uint64(result)
    card.launch(function, 1, *values)  # loads the code
    found: dict[int, int] = {}
    end_s = clock() + seconds
    while (now_s := clock()) < end_s:
        card.launch(function, blocks, *values)
        second = int(now_s)
        found[second] = found.get(second, 0) + blocks
    return found


def _told(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables by which a slice is told, and limited."""
    wanted = ("GPU_", "CUDA_MPS_", "CUDA_VISIBLE_", "NVIDIA_", "LD_PRELOAD")
    return {name: text for name, text in sorted(environ.items()) if name.startswith(wanted)}


def _nvml() -> dict[str, Any]:
    """Name, driver and memory of the first visible card; empty where NVML does not answer."""
    try:
        import pynvml  # noqa: PLC0415 - of the node daemon's extra alone

        pynvml.nvmlInit()
    except Exception:  # noqa: BLE001 - no library, no binding, no card: nothing is known
        return {}
    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
        return {
            "driver": str(pynvml.nvmlSystemGetDriverVersion()),
            "card": str(pynvml.nvmlDeviceGetName(handle)),
            "nvml_total_mib": int(memory.total) // MIB,
            "nvml_used_mib": int(memory.used) // MIB,
        }
    except pynvml.NVMLError:
        return {}
    finally:
        pynvml.nvmlShutdown()


def main(seconds: float) -> Measured:
    """Measure with the real driver; a fault is an answer too."""
    from gpu_fraction.selftest.cuda import Cuda, CudaError, NoCudaError  # noqa: PLC0415

    try:
        return measure(Cuda, os.environ, seconds=seconds)
    except NoCudaError as e:
        return Measured(problem=f"no GPU here: {e}", env=_told(os.environ))
    except CudaError as e:
        return Measured(problem=str(e), env=_told(os.environ))
