"""The machine's NVIDIA cards as the source of cards sees them."""

from collections.abc import Callable

from gpu_fraction.node_daemon.cards import inventory_reader
from gpu_fraction.node_daemon.cards.health_events import Event
from gpu_fraction.node_daemon.cards.health_watch import HealthWatch
from gpu_fraction.node_daemon.cards.inventory_reader import NodeReading
from gpu_fraction.node_daemon.cards.nvml_driver import Driver, open_driver
from gpu_fraction.node_daemon.cards.source import CardSettings


class NvmlCards:
    """Reads and watches the cards through NVML."""

    def __init__(self, driver: Driver, settings: CardSettings) -> None:
        self.driver = driver
        self._settings = settings

    @classmethod
    def open(cls, settings: CardSettings) -> "NvmlCards":
        """Load NVML.

        Raises:
            NvmlError: there is no driver now.
        """
        return cls(open_driver(), settings)

    def reopen(self) -> None:
        """Load NVML again, after the driver has gone."""
        self.driver.reopen()

    def read(self) -> NodeReading:
        """Every card as it is now."""
        return inventory_reader.read(self.driver)

    def watch(self, sink: Callable[[Event], None]) -> Callable[[], None]:
        """Hand on events and regular polls until the function returned is called."""
        settings = self._settings
        watch = HealthWatch(self.driver, sink, settings.poll_interval_s, settings.event_wait_s)
        watch.start()
        return watch.stop
