"""Cards in pure Python: no NVML, no C."""

from collections.abc import Callable

from gpu_fraction.node_daemon.cards.health_events import Event
from gpu_fraction.node_daemon.cards.inventory_reader import CardReading, NodeReading


class FakeCards:
    """Shows the readings that it was given, and hands on what it is told."""

    driver = None

    def __init__(self, *cards: CardReading) -> None:
        self.cards = cards
        self.sink: Callable[[Event], None] | None = None

    def reopen(self) -> None:
        """They never go away."""

    def read(self) -> NodeReading:
        """The readings."""
        return NodeReading("fake", self.cards, {})

    def watch(self, sink: Callable[[Event], None]) -> Callable[[], None]:
        """Keep the sink until the end of the watch."""
        self.sink = sink

        def stop() -> None:
            self.sink = None

        return stop

    def tell(self, event: Event) -> None:
        """Something happens to a card."""
        assert self.sink is not None
        self.sink(event)
