"""Cards and containers of the tests of MPS, and the control daemon's limits."""

from gpu_fraction.domain.assignment import CardShare
from gpu_fraction.node_daemon.isolation.engine import CardFacts, Part, Resource
from tests.support import fake_gpus
from tests.support.fake_gpus import bound
from tests.unit.node_daemon.isolation.conftest import Mps

ONE, TWO = fake_gpus.uuid(0), fake_gpus.uuid(1)
CARDS = (CardFacts(ONE, 0, 80959, (9, 0)), CardFacts(TWO, 1, 80959, (9, 0)))
BOTH = frozenset(Resource)


def part(
    container: str = "a",
    *shares: tuple[str, int, int],
    resources: frozenset[Resource] = BOTH,
) -> Part:
    """A container's card, thousandths and MiB."""
    held = tuple(CardShare(*share) for share in shares or ((ONE, 250, 8000),))
    return Part(bound("3f2e1d0c-aaaa-bbbb-cccc-0123456789ab", container, held), held, resources)


def limits(mps: Mps) -> dict[str, tuple[int | None, float | None]]:
    """What the control daemon enforces, but for its own namespace."""
    found = mps.control().namespaces("gpu_fraction").values()
    return {n.name: (n.memory_mib, n.percent) for n in found if n.name != "default"}


def name(one: Part) -> str:
    """The container's namespace."""
    return f"gf_{one.binding.tag}"
