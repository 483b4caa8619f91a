"""A CUDA program without CUDA's toolkit: ctypes on the driver's ``libcuda.so.1``.

``allocate MIB [STEP]``  takes device memory in steps until MIB or an error; prints how much it got
``hold MIB FILE``        takes MIB, makes FILE, and waits until FILE is gone
``processors``           prints how many multiprocessors the program may use
``spin BLOCKS``          runs BLOCKS blocks that each keep a place busy for one time; prints ms
"""

import ctypes
import json
import pathlib
import sys
import time

MIB = 1 << 20
OUT_OF_MEMORY = 2
MULTIPROCESSORS = 16
THREADS = 1024
CYCLES = 20_000_000

# Each block reads the clock until CYCLES have passed, so that a block's time does not depend on
# what else runs: only the number of places for blocks makes a difference.
PTX = """
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
"""


class Cuda:
    """A context on the first visible card."""

    def __init__(self) -> None:
        try:
            self.library = ctypes.CDLL("libcuda.so.1")
        except OSError:
            print("no libcuda")
            sys.exit(0)
        self.device = ctypes.c_int()
        self.context = ctypes.c_void_p()
        self.call("cuInit", 0)
        self.call("cuDeviceGet", ctypes.byref(self.device), 0)
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(self.context), self.device)
        self.call("cuCtxSetCurrent", self.context)

    def call(self, name: str, *arguments: object) -> None:
        """Call the driver; any error ends the program."""
        code = getattr(self.library, name)(*arguments)
        if code:
            sys.exit(f"{name}: CUDA error {code}")

    def allocate(self, size: int) -> bool:
        """Take memory; False where there is none left."""
        pointer = ctypes.c_void_p()
        code = self.library.cuMemAlloc_v2(ctypes.byref(pointer), ctypes.c_size_t(size))
        if code not in {0, OUT_OF_MEMORY}:
            sys.exit(f"cuMemAlloc: CUDA error {code}")
        return not code

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

    def spin(self, blocks: int) -> float:
        """Milliseconds for that many blocks."""
        module, function = ctypes.c_void_p(), ctypes.c_void_p()
        self.call("cuModuleLoadData", ctypes.byref(module), PTX.encode())
        self.call("cuModuleGetFunction", ctypes.byref(function), module, b"spin")
        cycles = ctypes.c_uint64(CYCLES)
        arguments = (ctypes.c_void_p * 1)(ctypes.addressof(cycles))
        elapsed_s = 0.0
        for count in (1, blocks):  # the first run loads the code
            start = time.perf_counter()
            shape = (count, 1, 1, THREADS, 1, 1, 0)
            self.call("cuLaunchKernel", function, *shape, None, arguments, None)
            self.call("cuCtxSynchronize")
            elapsed_s = time.perf_counter() - start
        return elapsed_s * 1000


def main(words: list[str]) -> None:
    """Do what the words say and print the result as JSON."""
    cuda = Cuda()
    match words:
        case ["allocate", mib, *step]:
            size = int(step[0]) if step else 64
            got = 0
            while got < int(mib) and cuda.allocate(size * MIB):
                got += size
            free, total = cuda.memory()
            print(json.dumps({"got_mib": got, "free_mib": free, "total_mib": total}))
        case ["hold", mib, file]:
            held = cuda.allocate(int(mib) * MIB)
            path = pathlib.Path(file)
            path.write_text(str(int(held)))
            while path.exists():
                time.sleep(0.05)
            print(json.dumps({"held": held}))
        case ["processors"]:
            print(json.dumps({"processors": cuda.processors()}))
        case ["spin", blocks]:
            print(json.dumps({"ms": cuda.spin(int(blocks)), "processors": cuda.processors()}))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
