"""Generate the Python modules of the vendored ``.proto`` files, or check that they are current.

Usage: ``python scripts/generate_protos.py [--check]``. With ``--check`` nothing is written and
the exit status is 1 where a generated file differs from the one in the repository.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = Path("gpu_fraction/kubelet_api")
SUFFIXES = ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py", "_pb2_grpc.pyi")


def generate(target: Path) -> None:
    """Write the modules of every proto of the package below ``target``.

    The protos are named relative to the repository's root, which gives each a unique path in
    protobuf's registry and the generated modules an absolute import of one another.
    """
    protos = sorted(str(path.relative_to(ROOT)) for path in (ROOT / PACKAGE).glob("*.proto"))
    plugins = Path(sys.executable).parent
    command = [sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={ROOT}"]
    command += [f"--{kind}_out={target}" for kind in ("python", "grpc_python")]
    command += [f"--{kind}_out=quiet:{target}" for kind in ("mypy", "mypy_grpc")]
    environ = os.environ | {"PATH": f"{plugins}{os.pathsep}{os.environ.get('PATH', '')}"}
    subprocess.run([*command, *protos], check=True, cwd=ROOT, env=environ)


def generated(root: Path) -> dict[str, str]:
    """The generated files below ``root``, name to text."""
    files = (root / PACKAGE).iterdir()
    return {path.name: path.read_text() for path in files if path.name.endswith(SUFFIXES)}


def main() -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    if not parser.parse_args().check:
        generate(ROOT)
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        generate(Path(scratch))
        fresh, present = generated(Path(scratch)), generated(ROOT)
    stale = sorted(name for name in fresh | present if fresh.get(name) != present.get(name))
    for name in stale:
        print(f"{PACKAGE / name} is not what its .proto generates: run make protos")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
