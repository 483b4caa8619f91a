"""The kubelet's own notes of its allocations: a second witness of who holds a token.

PodResources tells no UID, and a token may have been answered with more than one name. The
device manager's checkpoint tells both. Its format is private to the kubelet, so nothing
depends on it: where it cannot be read as expected, there is no second witness.
Source: kubernetes pkg/kubelet/cm/devicemanager/checkpoint/checkpoint.go, unchanged from 1.20
to 1.36 in what is read here.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import structlog
from google.protobuf.message import DecodeError

from gpu_fraction.domain import keys
from gpu_fraction.kubelet_api import deviceplugin_v1beta1_pb2
from node_daemon.allocation import Nonce, PodUid, Token
from node_daemon.cdi import ANNOTATION_PREFIX, KIND

FILE: Final = "kubelet_internal_checkpoint"

__all__ = ["FILE", "Checkpoint", "Entry"]

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Entry:
    """A container that was allocated a token, and the name it was answered."""

    uid: PodUid
    container: str
    nonce: Nonce | None


class _PodDevices(msgspec.Struct, frozen=True):
    PodUID: str
    ContainerName: str
    ResourceName: str
    DeviceIDs: dict[str, list[str]] | list[str] | None = None
    AllocResp: bytes | None = None


class _Data(msgspec.Struct, frozen=True):
    PodDeviceEntries: list[_PodDevices] | None = None


class _File(msgspec.Struct, frozen=True):
    Data: _Data


_DECODER: Final = msgspec.json.Decoder(_File)


class Checkpoint:
    """Reads the file again only when it has changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._entries: dict[Token, tuple[Entry, ...]] | None = None

    def entries(self, token: Token) -> tuple[Entry, ...]:
        """Who was allocated a token; empty also where the file tells nothing. Blocking."""
        try:
            stat = self._path.stat()
            seen = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            if self._entries is None or seen != self._seen:
                self._entries = _read(self._path.read_bytes())
                self._seen = seen
        except (OSError, msgspec.MsgspecError, DecodeError) as e:
            _log.debug("kubelet_checkpoint_unreadable", error=str(e))
            self._entries = None
            return ()
        return self._entries.get(token, ())


def _read(content: bytes) -> dict[Token, tuple[Entry, ...]]:
    found: dict[Token, tuple[Entry, ...]] = {}
    for entry in _DECODER.decode(content).Data.PodDeviceEntries or ():
        if entry.ResourceName != keys.SLOT:
            continue
        ids = entry.DeviceIDs or []
        tokens = [i for node in ids.values() for i in node] if isinstance(ids, dict) else ids
        read = Entry(PodUid(entry.PodUID), entry.ContainerName, _nonce(entry.AllocResp or b""))
        for token in tokens:
            found[Token(token)] = (*found.get(Token(token), ()), read)
    return found


def _nonce(answer: bytes) -> Nonce | None:
    """The name in a stored answer to ``Allocate``.

    Raises:
        DecodeError: no such answer.
    """
    response = deviceplugin_v1beta1_pb2.ContainerAllocateResponse.FromString(answer)
    names = [device.name for device in response.cdi_devices]
    names += [v for k, v in response.annotations.items() if k.startswith(ANNOTATION_PREFIX)]
    nonces = {name.removeprefix(f"{KIND}=") for name in names if name.startswith(f"{KIND}=")}
    return Nonce(nonces.pop()) if len(nonces) == 1 else None
