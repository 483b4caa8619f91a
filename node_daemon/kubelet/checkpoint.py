"""The kubelet's checkpoint of its allocations: a second source for the holder of a token.

PodResources has no UID, and a token may have been answered with more than one name. The
device manager's checkpoint has both. Its format is private to the kubelet, so nothing
depends on it: where it cannot be read as expected, there is no second source.
Source: kubernetes pkg/kubelet/cm/devicemanager/checkpoint/checkpoint.go, the same from 1.34 to
1.37.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import structlog
from google.protobuf.message import DecodeError

from gpu_fraction.domain import keys
from gpu_fraction.kubelet_api import deviceplugin_v1beta1_pb2
from gpu_fraction.node_daemon.state.allocation import KIND, Nonce, PodUid, Token

FILE: Final = "kubelet_internal_checkpoint"

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Entry:
    """A container that was allocated a token, and the name it was answered."""

    uid: PodUid
    container: str
    nonce: Nonce | None


# The kubelet writes every field, so one that is absent is a form that is not known here.
class _PodDevices(msgspec.Struct, frozen=True):
    PodUID: str
    ContainerName: str
    ResourceName: str
    DeviceIDs: dict[str, list[str]] | None
    AllocResp: bytes | None


class _Data(msgspec.Struct, frozen=True):
    PodDeviceEntries: list[_PodDevices] | None


class _File(msgspec.Struct, frozen=True):
    Data: _Data


_DECODER: Final = msgspec.json.Decoder(_File)


class Checkpoint:
    """Reads the file again only when it has changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # Replaced as one: threads ask beside each other.
        self._latest: tuple[tuple[int, int, int], dict[Token, tuple[Entry, ...]]] | None = None

    def entries(self, token: Token) -> tuple[Entry, ...] | None:
        """The holders of a token; None where the file cannot be read. Blocking."""
        latest = self._latest
        try:
            stat = self._path.stat()
            seen = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            if latest is None or seen != latest[0]:
                latest = self._latest = seen, _read(self._path.read_bytes())
        except (OSError, msgspec.MsgspecError, DecodeError) as e:
            _log.debug("kubelet_checkpoint_unreadable", error=str(e))
            self._latest = None
            return None
        return latest[1].get(token, ())


def _read(content: bytes) -> dict[Token, tuple[Entry, ...]]:
    found: dict[Token, tuple[Entry, ...]] = {}
    for entry in _DECODER.decode(content).Data.PodDeviceEntries or ():
        if entry.ResourceName != keys.SLOT:
            continue
        tokens = [i for node in (entry.DeviceIDs or {}).values() for i in node]
        read = Entry(PodUid(entry.PodUID), entry.ContainerName, _nonce(entry.AllocResp or b""))
        for token in tokens:
            found[Token(token)] = (*found.get(Token(token), ()), read)
    return found


def _nonce(answer: bytes) -> Nonce | None:
    """The name in a stored answer to ``Allocate``.

    Raises:
        DecodeError: the answer does not decode.
    """
    response = deviceplugin_v1beta1_pb2.ContainerAllocateResponse.FromString(answer)
    names = [device.name for device in response.cdi_devices]
    nonces = {name.removeprefix(f"{KIND}=") for name in names if name.startswith(f"{KIND}=")}
    return Nonce(nonces.pop()) if len(nonces) == 1 else None
