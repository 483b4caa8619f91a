"""A CUDA program for the tests.

``allocate MIB [STEP]``  takes device memory in steps until MIB or an error; prints how much it got
``hold MIB FILE``        takes MIB, makes FILE, and waits until FILE is gone
``processors``           prints how many multiprocessors the program may use
``spin BLOCKS``          runs BLOCKS blocks that each keep a place busy for one time; prints ms
"""

import json
import pathlib
import sys
import time

from gpu_fraction.selftest.cuda import MIB, Cuda, CudaError, NoCudaError


def main(words: list[str]) -> None:
    """Do what the words say and print the result as JSON."""
    try:
        cuda = Cuda()
    except NoCudaError:
        print("no libcuda")
        sys.exit(0)
    match words:
        case ["allocate", mib, *step]:
            size = int(step[0]) if step else 64
            got = 0
            while got < int(mib) and cuda.allocate(size * MIB):
                got += size
            free, total = cuda.memory()
            print(json.dumps({"got_mib": got, "free_mib": free, "total_mib": total}))
        case ["hold", mib, file]:
            held = bool(cuda.allocate(int(mib) * MIB))
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
    try:
        main(sys.argv[1:])
    except CudaError as e:
        sys.exit(str(e))
