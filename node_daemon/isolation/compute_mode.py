"""The compute modes that were changed for MPS, and what they were before.

A card in EXCLUSIVE_PROCESS gives one process a context: with MPS that is its server, without MPS
it is the first container. The mode outlives this daemon, so what it set is remembered on disk,
and put back once MPS does not serve that card any more.
"""

import pathlib
import threading
from collections.abc import Iterable
from typing import Final

import msgspec
import structlog

from gpu_fraction.node_daemon.cards import nvml
from gpu_fraction.node_daemon.cards.nvml_driver import Driver
from gpu_fraction.node_daemon.state.durable import write_durably
from gpu_fraction.node_daemon.state.errors import EngineFailedError, StoreError

_UNREADABLE: Final = "compute_modes_unreadable"

_log = structlog.get_logger()


class ComputeModes:
    """Claims cards for MPS and gives them back.

    Args:
        record: File of the cards that were changed; must survive a restart of the daemon.
    """

    def __init__(self, driver: Driver, record: pathlib.Path) -> None:
        self._driver = driver
        self._record = record
        self._lock = threading.Lock()
        self._before: dict[str, int] | None = None

    def claim(self, uuid: str) -> None:
        """Let MPS alone have contexts on a card; idempotent.

        Raises:
            EngineFailedError: the driver refused, or the change could not be remembered.
        """
        try:
            device = self._driver.device_by_uuid(uuid)
            mode = device.compute_mode()
            if mode == nvml.COMPUTE_MODE_EXCLUSIVE_PROCESS:
                return
            with self._lock:
                # Before the change: a crash between the two is repaired by giving it back.
                self._keep({uuid: mode, **self._claimed()})
            device.set_compute_mode(nvml.COMPUTE_MODE_EXCLUSIVE_PROCESS)
        except (nvml.NvmlError, StoreError, OSError) as e:
            raise EngineFailedError(f"compute mode: {e}") from e

    def release(self, uuids: Iterable[str]) -> None:
        """Put the modes of these cards back, of those that were claimed.

        A mode that has been changed by hand stays. A failure is logged, and tried again at the
        next call.
        """
        try:
            with self._lock:
                claimed = self._claimed()
        except OSError as e:
            _log.error(_UNREADABLE, file=str(self._record), error=str(e))
            return
        for uuid in uuids:
            before = claimed.get(uuid)
            if before is None:
                continue
            try:
                device = self._driver.device_by_uuid(uuid)
                if device.compute_mode() == nvml.COMPUTE_MODE_EXCLUSIVE_PROCESS:
                    device.set_compute_mode(before)
                with self._lock:
                    self._keep({u: m for u, m in self._claimed().items() if u != uuid})
            except (nvml.NvmlError, StoreError, OSError) as e:
                _log.error("compute_mode_not_restored", card=uuid, error=str(e))
            else:
                _log.info("compute_mode_restored", card=uuid, mode=before)

    def _claimed(self) -> dict[str, int]:
        """Card to its mode before; read from disk once.

        Raises:
            OSError: it cannot be read now; damaged content counts as none.
        """
        if self._before is None:
            try:
                self._before = msgspec.json.decode(self._record.read_bytes(), type=dict[str, int])
            except FileNotFoundError:
                self._before = {}
            except msgspec.MsgspecError as e:
                _log.error(_UNREADABLE, file=str(self._record), error=str(e))
                self._before = {}
        return self._before

    def _keep(self, before: dict[str, int]) -> None:
        if before != self._before:
            self._record.parent.mkdir(parents=True, exist_ok=True)
            write_durably(self._record, msgspec.json.encode(before))
            self._before = before
