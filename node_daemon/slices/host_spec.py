"""The host's own CDI specification of its GPUs, as nvidia-ctk writes it.

A CDI device cannot refer to another one, so the device nodes, driver mounts and hooks of
``nvidia.com/gpu`` are copied into each slice's file.
Source: NVIDIA Container Toolkit, ``nvidia-ctk cdi generate``; CDI specification, section "CDI
JSON Specification".
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from gpu_fraction.domain import keys
from gpu_fraction.node_daemon.state.errors import HostSpecError

KIND: Final = "nvidia.com/gpu"
SUFFIXES: Final = frozenset({".json", ".yaml", ".yml"})
MAX_BYTES: Final = 4 << 20
"""Larger files are not read: chosen, a hundred times what nvidia-ctk writes for eight GPUs."""

RawEdits = dict[str, Any]

_log = structlog.get_logger()


class _Device(msgspec.Struct, frozen=True, rename="camel"):
    name: str
    container_edits: RawEdits = {}


class _Spec(msgspec.Struct, frozen=True, rename="camel"):
    kind: str
    cdi_version: str = ""
    devices: tuple[_Device, ...] = ()
    container_edits: RawEdits = {}


@dataclass(frozen=True, slots=True)
class HostSpec:
    """One ``nvidia.com/gpu`` specification.

    Attributes:
        common: Edits for whichever device is used.
    """

    cdi_version: str
    common: RawEdits
    devices: dict[str, RawEdits]

    def edits(self, uuids: Iterable[str]) -> list[Mapping[str, Any]]:
        """The edits that give a container these cards.

        Raises:
            HostSpecError: a card is not in it under its UUID. Indexes are no substitute: they
                may have moved since the file was written.
        """
        found: list[Mapping[str, Any]] = [self.common]
        for uuid in uuids:
            if uuid not in self.devices:
                raise HostSpecError(
                    f"the host's {KIND} specification has no device named {uuid}; regenerate "
                    "it with: nvidia-ctk cdi generate --device-name-strategy=uuid"
                )
            found.append(self.devices[uuid])
        return found


def of_simulated(uuids: Iterable[str]) -> HostSpec:
    """What containers get of simulated cards: a variable that says so, and no device."""
    said = {"env": [f"{keys.SIMULATED_VARIABLE}=true"]}
    return HostSpec("", said, {uuid: {} for uuid in uuids})


class HostSpecReader:
    """Reads the specification, again only when a file of its directories has changed."""

    def __init__(self, directories: Sequence[Path]) -> None:
        """Read ``directories``; the last has the highest priority."""
        self._directories = directories
        self._seen: object = None
        self._spec: HostSpec | None = None

    def read(self) -> HostSpec | None:
        """The specification; None where the host has none. Blocking.

        Raises:
            HostSpecError: there is one, but it cannot be read.
        """
        files = self._files()
        seen = [(path, s.st_mtime_ns, s.st_size, s.st_ino) for path, s in files]
        if seen != self._seen:
            self._spec = _load([path for path, _ in files])
            self._seen = seen
        return self._spec

    def _files(self) -> list[tuple[Path, Any]]:
        found = []
        for directory in self._directories:
            try:
                names = sorted(directory.iterdir())
            except OSError:
                continue
            for path in names:
                if path.suffix in SUFFIXES and not path.name.startswith((".", "gpu-fraction-")):
                    try:
                        found.append((path, path.stat()))
                    except OSError:
                        continue
        return found


def _load(paths: Iterable[Path]) -> HostSpec | None:
    """The device of each name from the file of highest priority, that is the last."""
    spec: HostSpec | None = None
    for path in paths:
        read = _read(path)
        if read is not None and read.kind == KIND:
            devices = {device.name: device.container_edits for device in read.devices}
            spec = HostSpec(read.cdi_version, read.container_edits, devices)
            _log.info("host_spec_read", file=str(path), devices=len(devices))
    return spec


def _read(path: Path) -> _Spec | None:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise HostSpecError(f"{path} is larger than {MAX_BYTES} bytes")
        content = path.read_bytes()
        if KIND.encode() not in content:
            return None
        if path.suffix == ".json":
            return msgspec.json.decode(content, type=_Spec)
        return msgspec.convert(YAML(typ="safe", pure=True).load(content), type=_Spec)
    except (OSError, msgspec.MsgspecError, YAMLError) as e:
        raise HostSpecError(f"{path} is not a CDI specification: {e}") from e
