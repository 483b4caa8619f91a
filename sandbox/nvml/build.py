"""Compiles the stand-in ``libnvidia-ml.so.1`` from the C source beside this file."""

import hashlib
import os
import pathlib
import shutil
import subprocess
import tempfile
from typing import Final

SOURCE: Final = pathlib.Path(__file__).parent / "library"
NAME: Final = "libnvidia-ml.so.1"
FLAGS: Final = (
    *("-std=c11", "-O1", "-fPIC", "-shared", "-pthread", "-fvisibility=hidden"),
    *("-Wall", "-Wextra"),
    # pynvml opens the library by this name; one already loaded under it is found without a
    # search, so a test need not be started with LD_LIBRARY_PATH.
    f"-Wl,-soname,{NAME}",
)


class CompileError(RuntimeError):
    """There is no C compiler, or it refused the source; the message holds its output."""


def build(directory: pathlib.Path | None = None, compiler: str = "gcc") -> pathlib.Path:
    """Compile where needed and return the library's path.

    Args:
        directory: Also put the library there; default, only into a cache in the system's
            temporary directory keyed by the source, so that many test runs compile once.
        compiler: A C compiler with gcc's flags.

    Raises:
        CompileError: no compiler, it failed, or the cache is another user's.
    """
    sources = sorted(SOURCE.glob("*.[ch]"))
    key = hashlib.sha256(b"".join(s.read_bytes() for s in sources) + " ".join(FLAGS).encode())
    cache = pathlib.Path(tempfile.gettempdir()) / (
        f"gpu-fraction-nvml-{os.getuid()}-{key.hexdigest()[:16]}"
    )
    built = cache / NAME
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    if cache.stat().st_uid != os.getuid():
        # Anyone may make directories in /tmp; a library of theirs must not be loaded here.
        raise CompileError(f"{cache} belongs to another user")
    if not built.exists():
        _compile([str(s) for s in sources if s.suffix == ".c"], built, compiler)
    if directory is None:
        return built
    directory.mkdir(parents=True, exist_ok=True)
    # By rename: a process may have the old file mapped.
    temporary = directory / (NAME + ".new")
    shutil.copyfile(built, temporary)
    return temporary.replace(directory / NAME)


def _compile(sources: list[str], target: pathlib.Path, compiler: str) -> None:
    found = shutil.which(compiler)
    if found is None:
        raise CompileError(f"no compiler {compiler!r} on PATH; the fake GPUs need one")
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        output = pathlib.Path(scratch) / NAME
        run = subprocess.run(  # noqa: S603 - the compiler and the arguments are ours
            [found, *FLAGS, "-o", str(output), *sources],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if run.returncode:
            raise CompileError(run.stderr or f"{compiler} ended with {run.returncode}")
        # By rename, so that two test runs at once never see half a library.
        output.replace(target)
