"""Finds the cgroups of pods, and the pod of a process."""

import pathlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

ROOT: Final = pathlib.Path("/sys/fs/cgroup")

# A pod's UID as the cgroup's name has it: dashes are underscores under systemd, and static
# pods have 32 digits without any. Source: kubelet, pkg/kubelet/cm/pod_container_manager_linux.go.
_POD: Final = re.compile(
    r"pod([0-9a-f]{8}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{12}|[0-9a-f]{32})"
    r"(?=[./]|$)"
)
_CONTAINER: Final = re.compile(r"(?<![0-9a-f])([0-9a-f]{64})(?![0-9a-f])")


@dataclass(frozen=True, slots=True)
class Member:
    """The pod and container of a process; ``container_id`` is empty where it is in neither."""

    pod_uid: str
    container_id: str


def member(cgroup_file: str) -> Member | None:
    """The pod and container of a process, None where it is in no pod.

    Args:
        cgroup_file: The content of ``/proc/<pid>/cgroup``, version 1 or 2.
    """
    for line in cgroup_file.splitlines():
        path = line.split(":", 2)[-1]
        pod = _POD.search(path)
        if pod:
            container = _CONTAINER.findall(path, pod.end())
            return Member(pod[1].replace("_", "-"), container[-1] if container else "")
    return None


class PodCgroups:
    """The kubelet's part of a cgroup v2 tree."""

    def __init__(self, root: pathlib.Path = ROOT) -> None:
        self._root = root

    @property
    def unified(self) -> bool:
        """True where this is version 2."""
        return (self._root / "cgroup.controllers").is_file()

    def kubepods(self) -> Iterator[pathlib.Path]:
        """The directories that hold pods: one for each class of service, and their parent.

        The kubelet may have been given a root of its own (``--cgroup-root``), as kind does.
        """
        for base in (self._root, *sorted(self._root.glob("kubelet*"))):
            for top in sorted(base.glob("*kubepods*")):
                yield top
                yield from sorted(top.glob("*besteffort*"))
                yield from sorted(top.glob("*burstable*"))

    def find(self, pod_uid: str) -> pathlib.Path | None:
        """The pod's directory, None where there is none."""
        for parent in self.kubepods():
            path = parent / _name(parent, pod_uid)
            if path.is_dir():
                return path
        return None


def _name(parent: pathlib.Path, pod_uid: str) -> str:
    # Under systemd a slice's name repeats its parents' names.
    if parent.suffix == ".slice":
        return f"{parent.stem}-pod{pod_uid.replace('-', '_')}.slice"
    return f"pod{pod_uid}"
