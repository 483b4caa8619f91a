"""A slice as a file of the Container Device Interface.

The rules, each from a measurement against the CDI library that container runtimes use: a name
that a runtime may look up is never given other content; a file arrives by rename within its
directory, which is the only arrival that library notices; the answer to the kubelet comes a
little later, because it notices asynchronously.
"""

import asyncio
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from gpu_fraction.domain.assignment import CardShare
from gpu_fraction.domain.inventory import Card
from gpu_fraction.node_daemon.isolation.engine import ContainerEdits
from gpu_fraction.node_daemon.slices import framework_env
from gpu_fraction.node_daemon.slices.host_spec import HostSpec
from gpu_fraction.node_daemon.state.allocation import KIND, Binding, Nonce, PodUid
from gpu_fraction.node_daemon.state.durable import run_to_end, write_durably
from gpu_fraction.node_daemon.state.errors import StoreError

CDI_VERSION: Final = "0.5.0"
"""The lowest version with everything written here (device names that begin with a digit,
``hostPath`` of device nodes). Source: CDI specification, released versions."""

_LISTS: Final = ("env", "deviceNodes", "netDevices", "hooks", "mounts", "additionalGids")
_NAME: Final = re.compile(r"gpu-fraction-slice_([0-9a-z]+)_([0-9A-Za-z-]+)\.json", re.ASCII)
_ENCODER: Final = msgspec.json.Encoder(order="deterministic")


def compose(
    nonce: Nonce,
    binding: Binding,
    cards: Mapping[str, Card],
    host: HostSpec | None,
    isolation: ContainerEdits,
    *,
    frameworks: bool,
) -> bytes:
    """The content of a slice's file; same input, same bytes.

    Args:
        nonce: The slice's name.
        binding: Its container and shares.
        cards: The node's cards, by UUID.
        host: The host's specification of its cards; None where it has none.
        isolation: What the isolation engines add.
        frameworks: Whether frameworks are told their part where it is known.

    Raises:
        HostSpecError: the host's specification lacks one of the cards.
    """
    uuids = [share.uuid for share in binding.shares]
    env = _environment(binding.shares, cards)
    # Always there, because what a ConfigMap sets under this name would give other cards. With the
    # host's edits NVIDIA's runtime has nothing to do. Source: NVIDIA container toolkit, "GPU
    # enumeration".
    env["NVIDIA_VISIBLE_DEVICES"] = ",".join(uuids) if host is None else "void"
    parts: list[Mapping[str, Any]] = [] if host is None else host.edits(uuids)
    parts.append(
        {
            "mounts": isolation.mounts,
            "deviceNodes": isolation.device_nodes,
            "hooks": isolation.hooks,
        }
    )
    if frameworks:
        hooks = None if host is None else [h for part in parts for h in part.get("hooks") or ()]
        env |= framework_env.variables(binding, cards, isolation, hooks)
    edits = _merge(parts, {**env, **isolation.env})
    version = max(CDI_VERSION, host.cdi_version if host else "", key=_version)
    return _ENCODER.encode(
        {
            "cdiVersion": version,
            "kind": KIND,
            "devices": [{"name": nonce, "containerEdits": edits}],
        }
    )


def _environment(shares: Sequence[CardShare], cards: Mapping[str, Card]) -> dict[str, str]:
    """The variables that every container of a slice gets."""
    fractions = [_fraction(share, cards.get(share.uuid)) for share in shares]
    memory = [str(share.memory_mib) for share in shares]
    return {
        "GPU_FRACTION": _one_or_each(fractions),
        "GPU_MEMORY_LIMIT_MIB": _one_or_each(memory),
        "GPU_FRACTION_DEVICES": ",".join(share.uuid for share in shares),
    }


def _fraction(share: CardShare, card: Card | None) -> str:
    """The share of compute, else of memory where compute is not limited, as a decimal."""
    milli = share.core_milli
    whole_mib = 0 if card is None else card.parent_memory_mib or card.memory_mib
    if not milli and whole_mib:
        milli = max(1, share.memory_mib * 1000 // whole_mib)
    return f"{milli // 1000}.{milli % 1000:03d}".rstrip("0").rstrip(".")


def _one_or_each(values: Sequence[str]) -> str:
    """One value where all cards have the same, else one a card in the order of the devices."""
    return values[0] if len(set(values)) == 1 else ",".join(values)


def _merge(parts: Iterable[Mapping[str, Any]], env: Mapping[str, str]) -> dict[str, Any]:
    """All edits as one, each entry once; ``env`` wins over what the parts set."""
    merged: dict[str, Any] = {}
    for part in parts:
        for key, value in part.items():
            if key in _LISTS:
                present = merged.setdefault(key, [])
                present += [entry for entry in value or () if entry not in present]
            elif value:
                merged[key] = value
    kept = [line for line in merged.get("env", ()) if line.partition("=")[0] not in env]
    merged["env"] = kept + [f"{name}={value}" for name, value in sorted(env.items())]
    return {key: value for key, value in merged.items() if value}


def _version(text: str) -> tuple[int, ...]:
    parts = text.removeprefix("v").split(".")
    return tuple(int(part) for part in parts) if all(p.isdecimal() for p in parts) else ()


class SliceFiles:
    """Our files in the directory that the container runtime reads."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def prepare(self) -> None:
        """Make the directory and drop what an interrupted write left; blocking.

        Raises:
            StoreError: the directory cannot be made.
        """
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            for path in self._directory.glob(".gpu-fraction-slice_*.tmp"):
                path.unlink(missing_ok=True)
        except OSError as e:
            raise StoreError(f"CDI directory {self._directory}: {e.strerror}") from e

    def path(self, nonce: Nonce, uid: PodUid) -> Path:
        """The path of a slice's file; the pod's UID in the name lets the cleanup find its pod."""
        return self._directory / f"gpu-fraction-slice_{nonce}_{uid}.json"

    async def exists(self, nonce: Nonce, uid: PodUid) -> bool:
        """True where the slice has its file."""
        return await asyncio.to_thread(self.path(nonce, uid).exists)

    async def write(self, nonce: Nonce, uid: PodUid, content: bytes) -> bool:
        """Put the file there; True where it was absent or different.

        Raises:
            StoreError: it could not be written.
        """
        return await run_to_end(asyncio.to_thread(self._write, self.path(nonce, uid), content))

    def _write(self, path: Path, content: bytes) -> bool:
        with suppress(OSError):
            if path.read_bytes() == content:
                return False
        write_durably(path, content)
        return True

    async def remove(self, nonce: Nonce, uid: PodUid) -> None:
        """Take the file away; an absent one is no error.

        Raises:
            StoreError: it could not be removed.
        """
        try:
            await run_to_end(asyncio.to_thread(self.path(nonce, uid).unlink, missing_ok=True))
        except OSError as e:
            raise StoreError(f"{self.path(nonce, uid)} cannot be removed: {e.strerror}") from e

    async def present(self) -> dict[Nonce, PodUid]:
        """Every slice that has a file, with the pod it was written for."""
        return await asyncio.to_thread(self._present)

    def _present(self) -> dict[Nonce, PodUid]:
        with suppress(OSError):
            names = (_NAME.fullmatch(path.name) for path in self._directory.iterdir())
            return {Nonce(m[1]): PodUid(m[2]) for m in names if m}
        return {}
