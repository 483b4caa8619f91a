"""CUDA without its toolkit: ctypes on the driver's ``libcuda.so.1``, kernels as PTX text.

Source of names, numbers and types: CUDA Driver API reference, cuda.h 12.
"""

import ctypes
import time
from typing import Final

MIB: Final = 1 << 20
OUT_OF_MEMORY: Final = 2
MULTIPROCESSORS: Final = 16
THREADS: Final = 1024
CYCLES: Final = 20_000_000

ROUNDS: Final = 400_000
"""Rounds of one ``work`` kernel. Chosen: some milliseconds on today's cards, so that a second has
hundreds of launches and a launch's own time does not count."""

PTX: Final = """
.version 6.4
.target sm_75
.address_size 64
.visible .entry spin(.param .u64 cycles)
{
    .reg .pred %p;
    .reg .b64 %r<5>;
    ld.param.u64 %r1, [cycles];
    mov.u64 %r2, %clock64;
LOOP:
    mov.u64 %r3, %clock64;
    sub.u64 %r4, %r3, %r2;
    setp.lt.u64 %p, %r4, %r1;
    @%p bra LOOP;
    ret;
}
.visible .entry work(.param .u64 rounds, .param .u64 result)
{
    .reg .pred %p;
    .reg .b64 %r<3>;
    .reg .f32 %f<2>;
    ld.param.u64 %r1, [rounds];
    ld.param.u64 %r2, [result];
    cvta.to.global.u64 %r2, %r2;
    mov.f32 %f1, 0f3F000000;
LOOP:
    fma.rn.f32 %f1, %f1, %f1, 0f3DCCCCCD;
    sub.u64 %r1, %r1, 1;
    setp.ne.u64 %p, %r1, 0;
    @%p bra LOOP;
    st.global.f32 [%r2], %f1;
    ret;
}
"""
"""``spin``: each block reads the clock until so many cycles have passed, so that only the number
of places for blocks makes a difference. ``work``: each thread does the same sum so many times, so
that the launches of a second show the part of the card that was had; the store keeps the compiler
from dropping the loop."""


class NoCudaError(Exception):
    """There is no driver library here."""


class CudaError(Exception):
    """A call of the driver failed; the message names it."""


class Cuda:
    """A context on the first visible card."""

    def __init__(self) -> None:
        """Open it.

        Raises:
            NoCudaError: ``libcuda.so.1`` cannot be loaded.
            CudaError: the driver has no card, or refuses.
        """
        try:
            self.library = ctypes.CDLL("libcuda.so.1")
        except OSError as e:
            raise NoCudaError(str(e)) from e
        self.device = ctypes.c_int()
        self.context = ctypes.c_void_p()
        self.call("cuInit", 0)
        self.call("cuDeviceGet", ctypes.byref(self.device), 0)
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(self.context), self.device)
        self.call("cuCtxSetCurrent", self.context)

    def call(self, name: str, *arguments: object) -> None:
        """Call the driver.

        Raises:
            CudaError: it answers anything but success.
        """
        code = getattr(self.library, name)(*arguments)
        if code:
            raise CudaError(f"{name}: CUDA error {code}")

    def allocate(self, size_bytes: int) -> int:
        """Take memory; its address, 0 where there is none left.

        Raises:
            CudaError: any other failure.
        """
        pointer = ctypes.c_void_p()
        code = self.library.cuMemAlloc_v2(ctypes.byref(pointer), ctypes.c_size_t(size_bytes))
        if code not in {0, OUT_OF_MEMORY}:
            raise CudaError(f"cuMemAlloc: CUDA error {code}")
        return 0 if code else pointer.value or 0

    def free(self, address: int) -> None:
        """Give memory back."""
        self.call("cuMemFree_v2", ctypes.c_void_p(address))

    def memory(self) -> tuple[int, int]:
        """Free and total, MiB, as CUDA tells the program."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self.call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        return free.value // MIB, total.value // MIB

    def processors(self) -> int:
        """Multiprocessors that the program may use."""
        value = ctypes.c_int()
        self.call("cuDeviceGetAttribute", ctypes.byref(value), MULTIPROCESSORS, self.device)
        return value.value

    def kernel(self, name: str) -> ctypes.c_void_p:
        """A kernel of ``PTX``."""
        module, function = ctypes.c_void_p(), ctypes.c_void_p()
        self.call("cuModuleLoadData", ctypes.byref(module), PTX.encode())
        self.call("cuModuleGetFunction", ctypes.byref(function), module, name.encode())
        return function

    def launch(self, function: ctypes.c_void_p, blocks: int, *values: ctypes.c_uint64) -> None:
        """Run a kernel to its end."""
        addresses = [ctypes.addressof(value) for value in values]
        arguments = (ctypes.c_void_p * len(values))(*addresses)
        shape = (blocks, 1, 1, THREADS, 1, 1, 0)
        self.call("cuLaunchKernel", function, *shape, None, arguments, None)
        self.call("cuCtxSynchronize")

    def spin(self, blocks: int) -> float:
        """Milliseconds for that many blocks of ``spin``."""
        function, cycles = self.kernel("spin"), ctypes.c_uint64(CYCLES)
        elapsed_s = 0.0
        for count in (1, blocks):  # the first run loads the code
            start = time.perf_counter()
            self.launch(function, count, cycles)
            elapsed_s = time.perf_counter() - start
        return elapsed_s * 1000
