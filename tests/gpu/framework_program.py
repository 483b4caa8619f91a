"""Takes memory of the first card through a framework until it refuses; prints what it got.

Usage: ``framework_program.py torch|jax|cupy MIB``, the most to take. Prints JSON with the version,
the card's total as the framework sees it and the MiB taken, or ``{"absent": reason}``.
"""

import json
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

MIB = 1 << 20
STEP_MIB = 256


def _taken(take: Callable[[], Any], most_mib: int, refused: type[BaseException]) -> int:
    held: list[Any] = []
    try:
        while len(held) * STEP_MIB < most_mib:
            held.append(take())
    except refused:
        pass
    return len(held) * STEP_MIB


def with_torch(most_mib: int) -> dict[str, Any]:
    """PyTorch."""
    torch: Any = import_module("torch")
    if not torch.cuda.is_available():
        return {"absent": "this PyTorch sees no GPU"}
    total_mib = torch.cuda.get_device_properties(0).total_memory // MIB
    taken_mib = _taken(
        lambda: torch.empty(STEP_MIB * MIB, dtype=torch.uint8, device="cuda"),
        most_mib,
        torch.cuda.OutOfMemoryError,
    )
    return {"version": torch.__version__, "total_mib": total_mib, "taken_mib": taken_mib}


def with_jax(most_mib: int) -> dict[str, Any]:
    """JAX."""
    jax: Any = import_module("jax")
    jnp: Any = import_module("jax.numpy")
    device = jax.devices()[0]
    if device.platform != "gpu":
        return {"absent": "this JAX sees no GPU"}
    bound_mib = device.memory_stats()["bytes_limit"] // MIB
    taken_mib = _taken(
        lambda: jnp.zeros(STEP_MIB * MIB, dtype=jnp.uint8).block_until_ready(),
        most_mib,
        jax.errors.JaxRuntimeError,
    )
    return {"version": jax.__version__, "bound_mib": bound_mib, "taken_mib": taken_mib}


def with_cupy(most_mib: int) -> dict[str, Any]:
    """CuPy."""
    cupy: Any = import_module("cupy")
    total_mib = cupy.cuda.Device(0).mem_info[1] // MIB
    taken_mib = _taken(
        lambda: cupy.empty(STEP_MIB * MIB, dtype=cupy.uint8),
        most_mib,
        cupy.cuda.memory.OutOfMemoryError,
    )
    return {"version": cupy.__version__, "total_mib": total_mib, "taken_mib": taken_mib}


PROGRAMS = {"torch": with_torch, "jax": with_jax, "cupy": with_cupy}

if __name__ == "__main__":
    try:
        print(json.dumps(PROGRAMS[sys.argv[1]](int(sys.argv[2]))))
    except ImportError as e:
        print(json.dumps({"absent": str(e)}))
