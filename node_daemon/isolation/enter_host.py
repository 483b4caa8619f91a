"""Becomes a program of the host: run by its path, with the words of ``HostProcess.words``.

A program of its own, because only a process with a single thread may change its mount
namespace, and because nothing of this container's files is there afterwards; so it needs the
standard library alone.
"""

import ctypes
import os
import pathlib
import sys
from typing import Final

# Source: linux/sched.h and linux/mount.h; Python has no functions for these before 3.12.
CLONE_NEWNS: Final = 0x20000
MS_NOSUID: Final = 0x2
MS_NODEV: Final = 0x4
MS_NOEXEC: Final = 0x8
MS_BIND: Final = 0x1000
MS_REC: Final = 0x4000
MS_SLAVE: Final = 0x80000

SHM_OPTIONS: Final = "mode=1777,size=10%,nr_inodes=100k"
"""Every user may write and may remove only its own files; the size bounds what a user can take.
Chosen: half of what systemd gives /run; the files are few."""

_LIBC: Final = ctypes.CDLL(None, use_errno=True)


def _must(done: int, what: str) -> None:
    if done:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


def _enter_mounts(namespace: str) -> None:
    """Enter the mount namespace of another process, unless it is this one's."""
    if pathlib.Path(namespace).samefile("/proc/self/ns/mnt"):
        return
    descriptor = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    _must(_LIBC.setns(descriptor, CLONE_NEWNS), f"setns {namespace}")
    os.chdir("/")


def _mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    words = (os.fsencode(word) for word in (source, target, kind))
    _must(_LIBC.mount(*words, ctypes.c_ulong(flags), os.fsencode(options)), f"mount {target}")


def _have_shm(directory: str) -> None:
    """Mount a tmpfs there for all of the host, containers included, unless something is.

    What an earlier control daemon mounted stays: running containers have it.
    """
    pathlib.Path(directory).mkdir(parents=True, exist_ok=True)
    if not os.path.ismount(directory):
        _mount("gpu-fraction", directory, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, SHM_OPTIONS)


def _own_shm(directory: str) -> None:
    """See a directory as ``/dev/shm``, alone of all the host's programs."""
    _must(_LIBC.unshare(CLONE_NEWNS), "unshare")
    _mount("none", "/", "", MS_REC | MS_SLAVE)
    _mount(directory, "/dev/shm", "", MS_BIND)  # noqa: S108 - its place, not a temporary file


def main(words: list[str]) -> None:
    """Leave this container, control group first, and become the program.

    Args:
        words: The control group's ``cgroup.procs``, a mount namespace, a directory for
            ``/dev/shm`` or nothing, the program and its arguments.
    """
    members, namespace, shm, *program = words
    pathlib.Path(members).write_text(f"{os.getpid()}\n", encoding="ascii")
    _enter_mounts(namespace)
    if shm:
        _have_shm(shm)
        _own_shm(shm)
    os.execvp(program[0], program)  # noqa: S606 - the daemon's own words


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except OSError as e:
        sys.exit(str(e))
