"""One module a GPU-sharing stack; which there are, by name."""

from collections.abc import Callable, Mapping
from typing import Final

from gpu_fraction.domain import keys
from gpu_fraction.domain.backends.base import Backend, BackendConfig
from gpu_fraction.domain.backends.hami import Hami
from gpu_fraction.domain.backends.native import Native
from gpu_fraction.domain.backends.nvidia import Nvidia

BACKENDS: Final[Mapping[str, Callable[[BackendConfig], Backend]]] = {
    keys.NATIVE: Native,
    "hami": Hami,
    "nvidia": Nvidia,
}

__all__ = ["BACKENDS", "Backend", "BackendConfig"]
