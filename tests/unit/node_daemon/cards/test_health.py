"""The health of the cards: what makes one sick, and what makes it well again."""

import pytest

from gpu_fraction.domain.inventory import Card, Inventory
from gpu_fraction.node_daemon.cards import health
from gpu_fraction.node_daemon.cards.health_events import (
    IGNORED,
    RECOVERY_ACTIONS,
    UNTIL_RESET,
    Clear,
    Event,
    Fault,
    Poll,
    Target,
    Xid,
    parse_clear,
    targets,
)
from gpu_fraction.node_daemon.cards.inventory_reader import (
    CardReading,
    InstanceReading,
    NodeReading,
)

A, B = Target("GPU-a"), Target("GPU-b")
M1 = Target("MIG-1", "GPU-m", 1, 0)
M2 = Target("MIG-2", "GPU-m", 2, 0)
POLICY = health.HealthPolicy(good_polls=3, failed_polls=2)


class Node:
    """A node's cards, and time that passes ten seconds an event."""

    def __init__(self, *targets: Target, policy: health.HealthPolicy = POLICY) -> None:
        self.state = health.watching(health.Health(), targets or (A, B))
        self.policy = policy
        self.now_s = 0.0

    def then(self, *events: Event) -> "Node":
        """After these events."""
        for event in events:
            self.now_s += 10
            self.state = health.step(self.state, event, self.now_s, self.policy)
        return self

    @property
    def sick(self) -> dict[str, str]:
        """The sick cards and why."""
        return health.sick(self.state)


def good(card: str = "GPU-a", times: int = 1, **fields: object) -> tuple[Poll, ...]:
    """Polls that find nothing wrong."""
    return tuple(Poll(card, recovery_action=0, **fields) for _ in range(times))  # type: ignore[arg-type]


def test_an_xid_makes_its_card_sick_and_no_other() -> None:
    """At once, with the number as the reason."""
    assert Node().then(Xid("GPU-a", 62)).sick == {"GPU-a": "XID 62"}


@pytest.mark.parametrize("xid", sorted(IGNORED))
def test_errors_of_applications_are_ignored(xid: int) -> None:
    """NVIDIA's list: the program failed, the card did not."""
    assert Node().then(Xid("GPU-a", xid)).sick == {}


def test_the_announcement_of_a_recovery_action_is_no_fault() -> None:
    """XID 154 also says that a card is well again; the poll that follows decides."""
    assert Node().then(Xid("GPU-a", 154)).sick == {}


def test_a_card_recovers_after_good_polls_in_a_row() -> None:
    """Two are not enough, a bad one between starts anew, three in a row are."""
    node = Node().then(Xid("GPU-a", 62), *good(times=2))
    assert list(node.sick) == ["GPU-a"]
    node.then(Poll("GPU-a", repair_pending=True), *good(times=2))
    assert list(node.sick) == ["GPU-a"]
    assert node.then(*good()).sick == {}


def test_polls_of_another_card_do_not_heal() -> None:
    """Each card has its own series."""
    assert list(Node().then(Xid("GPU-a", 62), *good("GPU-b", 9)).sick) == ["GPU-a"]


def test_polls_between_the_regular_ones_do_not_hasten_recovery() -> None:
    """They may come as fast as events do; that is no time for a card to prove itself."""
    node = Node().then(Xid("GPU-a", 62), *good(times=9, regular=False))
    assert list(node.sick) == ["GPU-a"]
    assert node.then(Poll("GPU-b", lost="off the bus", regular=False)).sick["GPU-b"]


@pytest.mark.parametrize("xid", sorted(UNTIL_RESET))
def test_grave_errors_need_a_reset(xid: int) -> None:
    """Good polls alone do not bring the card back."""
    assert list(Node().then(Xid("GPU-a", xid), *good(times=50)).sick) == ["GPU-a"]


@pytest.mark.parametrize(
    "reset",
    [
        (Poll("GPU-a", lost="off the bus"),),
        (Poll("GPU-a", recovery_action=1),),
        (
            Poll("GPU-a", uncorrected_ecc=7, repair_pending=True),
            Poll("GPU-a", uncorrected_ecc=0, repair_pending=True),
        ),
    ],
    ids=["it was gone", "it asked for a reset", "its counters fell"],
)
def test_a_reset_that_was_seen_counts(reset: tuple[Poll, ...]) -> None:
    """After the reset the good polls bring the card back."""
    node = Node().then(Xid("GPU-a", 48), *good(times=5), *reset)
    assert node.then(*good(times=2)).sick
    assert node.then(*good()).sick == {}


def test_a_reset_before_the_error_does_not_count() -> None:
    """A new grave error needs a new reset."""
    node = Node().then(Poll("GPU-a", lost="x"), *good(times=3))
    assert node.sick == {}
    assert node.then(Xid("GPU-a", 79), *good(times=50)).sick == {"GPU-a": "XID 79"}


@pytest.mark.parametrize(("action", "text"), sorted(RECOVERY_ACTIONS.items()))
def test_a_recovery_action_makes_the_card_sick_until_it_is_done(action: int, text: str) -> None:
    """Whatever the driver asks for, no new work goes there meanwhile."""
    node = Node().then(Poll("GPU-a", recovery_action=action))
    assert node.sick == {"GPU-a": f"the driver requests: {text}"}
    assert node.then(*good(times=3)).sick == {}


def test_a_failed_row_remap_lasts() -> None:
    """The poll says so for as long as the card is in the machine."""
    node = Node().then(*(Poll("GPU-a", repair_failed=True) for _ in range(9)))
    assert "replace the card" in node.sick["GPU-a"]


def test_one_failed_poll_is_forgiven_and_two_are_not() -> None:
    """A call that fails once says little; a lost card is believed at once."""
    failed = Poll("GPU-a", error="timeout")
    assert Node().then(failed, *good(), failed, *good()).sick == {}
    assert Node().then(failed, failed).sick == {"GPU-a": "cannot be read: timeout"}
    assert Node().then(Poll("GPU-a", lost="GPU is lost")).sick == {"GPU-a": "lost: GPU is lost"}


def test_each_relapse_doubles_the_time_to_recover() -> None:
    """A card that comes and goes is believed less and less, up to a bound."""
    node = Node()
    needed = []
    for _ in range(6):
        node.then(Xid("GPU-a", 62))
        polls = 0
        while node.sick:
            node.then(*good())
            polls += 1
        needed.append(polls)
    assert needed == [3, 6, 12, 24, 24, 24]
    node.now_s += POLICY.relapse_window_s
    assert node.then(Xid("GPU-a", 62), *good(times=3)).sick == {}


def test_all_reasons_are_told() -> None:
    """Oldest first, in one line."""
    node = Node().then(
        Xid("GPU-a", 62),
        Xid("GPU-a", 74),
        Xid("GPU-a", 62),
        Fault("GPU-a", "fatal memory poison"),
    )
    assert node.sick["GPU-a"] == "XID 62; XID 74; fatal memory poison"


def test_an_error_of_an_instance_concerns_that_instance() -> None:
    """Other instances of the card go on; an error of the whole card concerns all."""
    assert list(Node(A, M1, M2).then(Xid("GPU-m", 62, 2, 0)).sick) == ["MIG-2"]
    assert list(Node(A, M1, M2).then(Xid("GPU-m", 62, 2)).sick) == ["MIG-2"]
    assert list(Node(A, M1, M2).then(Xid("GPU-m", 62)).sick) == ["MIG-1", "MIG-2"]


def test_an_error_of_an_unknown_instance_concerns_the_whole_card() -> None:
    """Which one it was is not known here, so that none is trusted."""
    assert list(Node(A, M1, M2).then(Xid("GPU-m", 62, 9, 0)).sick) == [
        "MIG-1",
        "MIG-2",
    ]


def test_a_poll_of_the_card_heals_its_instances() -> None:
    """Instances have no polls of their own."""
    node = Node(M1, M2).then(Xid("GPU-m", 62, 2, 0), *good("GPU-m", 3))
    assert node.sick == {}


def test_unknown_cards_change_nothing() -> None:
    """An event of a card that is not in the inventory is passed over."""
    node = Node()
    assert node.then(Xid("GPU-z", 79)).state == Node().state


@pytest.mark.parametrize("value", ["all", "GPU-a", " GPU-x , GPU-a", "GPU-a,all"])
def test_an_administrator_clears_a_card(value: str) -> None:
    """Also one that waits for a reset."""
    node = Node().then(Xid("GPU-a", 79), parse_clear(value))
    assert node.sick == {}


def test_clearing_one_card_leaves_the_other() -> None:
    """The annotation names cards; an empty one names none."""
    node = Node().then(
        Xid("GPU-a", 79),
        Xid("GPU-b", 79),
        parse_clear("GPU-b"),
        parse_clear(""),
    )
    assert list(node.sick) == ["GPU-a"]


def test_clearing_by_the_card_clears_its_instances() -> None:
    """As ``nvidia-smi`` names it."""
    node = Node(M1, M2).then(Xid("GPU-m", 79), parse_clear("GPU-m"))
    assert node.sick == {}


def test_what_lasts_comes_back_after_clearing() -> None:
    """A card that still asks for a reset cannot be wished well."""
    poll = Poll("GPU-a", recovery_action=1)
    assert Node().then(poll, Clear(None), poll).sick


def test_changes_name_the_cards_that_differ() -> None:
    """Turned sick, sick for one more reason, well again."""
    node = Node()
    before = node.state
    sick = node.then(Xid("GPU-a", 62)).state
    assert health.changes(before, sick) == (health.Change("GPU-a", False, "XID 62"),)
    worse = node.then(Xid("GPU-a", 63)).state
    assert health.changes(sick, worse) == (health.Change("GPU-a", False, "XID 62; XID 63"),)
    well = node.then(*good(times=3)).state
    assert health.changes(worse, well) == (health.Change("GPU-a", True, ""),)


def test_new_cards_are_healthy_and_old_ones_keep_their_state() -> None:
    """A change of MIG instances does not heal the other cards."""
    node = Node().then(Xid("GPU-a", 62))
    assert health.sick(health.watching(node.state, [A, M1])) == {"GPU-a": "XID 62"}
    assert health.sick(health.watching(node.state, [M1])) == {}


def test_the_cards_of_the_inventory_are_watched() -> None:
    """Instances with their place; one that does not answer now counts with its whole card."""
    inventory = Inventory(
        cards=(
            Card(uuid="GPU-a", index=0, model="", memory_mib=1),
            Card(uuid="MIG-1", index=1, model="", memory_mib=1, parent="GPU-m"),
            Card(uuid="MIG-2", index=1, model="", memory_mib=1, parent="GPU-m"),
        )
    )
    seen = InstanceReading("MIG-1", "", 1, 1, gpu_instance=1, compute_instance=0)
    reading = NodeReading("615", (CardReading(1, "GPU-m", instances=(seen,)),), {})
    silent = Target("MIG-2", "GPU-m")
    assert targets(inventory, reading) == (A, M1, silent)
    assert list(Node(M1, silent).then(Xid("GPU-m", 62, 2, 0)).sick) == [
        "MIG-1",
        "MIG-2",
    ]


def test_health_is_remembered_over_a_restart_and_forgotten_over_a_reboot() -> None:
    """And a file that cannot be read is as good as none."""
    state = Node().then(Xid("GPU-a", 79), *good(times=2)).state
    saved = health.dump(state, "boot-1")
    assert health.load(saved, "boot-1") == state
    assert health.load(saved, "boot-2") == health.Health()
    assert health.load(saved[:-9], "boot-1") == health.Health()
    assert health.load(b"", "boot-1") == health.Health()
