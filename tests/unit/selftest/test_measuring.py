"""What a container measures of its slice, on a card in memory."""

import ctypes
import itertools
import subprocess
import sys
from typing import Any

import msgspec
import pytest

from gpu_fraction.selftest.cuda import MIB
from gpu_fraction.selftest.inside import BEYOND_MIB, Measured, measure


class FakeCard:
    """A card that gives so much memory, and launches that take a tenth of a second."""

    def __init__(self, limit_mib: int, total_mib: int = 16384) -> None:
        self.limit_mib, self.total_mib = limit_mib, total_mib
        self.held: dict[int, int] = {}
        self.most_mib = 0
        self.now_s = 1000.0
        self._names = itertools.count(1)

    def allocate(self, size_bytes: int) -> int:
        """Up to the limit."""
        size_mib = max(1, size_bytes // MIB)
        if sum(self.held.values()) + size_mib > self.limit_mib:
            return 0
        name = next(self._names)
        self.held[name] = size_mib
        self.most_mib = max(self.most_mib, sum(self.held.values()))
        return name

    def free(self, address: int) -> None:
        """It was held."""
        del self.held[address]

    def memory(self) -> tuple[int, int]:
        """As CUDA tells."""
        return self.limit_mib, self.total_mib

    def processors(self) -> int:
        """A few."""
        return 10

    def kernel(self, name: str) -> ctypes.c_void_p:
        """There is one."""
        assert name == "work"
        return ctypes.c_void_p(1)

    def launch(self, function: ctypes.c_void_p, blocks: int, *values: ctypes.c_uint64) -> None:
        """Takes its time."""
        assert function.value == 1
        assert len(values) == 2
        self.now_s += 0.1 * blocks / 20

    def clock(self) -> float:
        """Moves with launches."""
        return self.now_s


def measured(card: FakeCard, **environ: str) -> Measured:
    """Five seconds on that card."""
    facts: dict[str, Any] = {"driver": "615.1", "card": "T", "nvml_used_mib": 7}
    return measure(lambda: card, environ, seconds=5, clock=card.clock, nvml=lambda: facts)


def test_a_slice_that_is_limited_ends_at_its_limit() -> None:
    """It wants more than its promise, and everything is given back before kernels run."""
    card = FakeCard(4096)
    found = measured(card, GPU_MEMORY_LIMIT_MIB="4096", GPU_FRACTION="0.25")
    assert (found.promised_mib, found.tried_mib, found.got_mib) == (4096, 4096 + BEYOND_MIB, 4096)
    assert (found.driver, found.card, found.nvml_used_mib, found.total_mib) == (
        "615.1",
        "T",
        7,
        16384,
    )
    assert sum(card.held.values()) <= 1
    assert found.env == {"GPU_FRACTION": "0.25", "GPU_MEMORY_LIMIT_MIB": "4096"}


def test_a_slice_without_a_limit_takes_little_more_than_its_promise() -> None:
    """Never all of a card that others may use."""
    card = FakeCard(16384)
    found = measured(card, GPU_MEMORY_LIMIT_MIB="4096")
    assert found.got_mib == found.tried_mib == card.most_mib == 4096 + BEYOND_MIB


def test_launches_are_counted_by_the_second() -> None:
    """In blocks, so that fewer processors do not look like the same speed."""
    found = measured(FakeCard(4096))
    assert set(found.launches) == set(range(1000, 1005))
    assert found.launches[1002] == 200


def test_simulated_cards_are_not_measured() -> None:
    """Nothing is opened."""

    def none() -> FakeCard:
        raise AssertionError

    found = measure(none, {"GPU_FRACTION_SIMULATED": "1"}, seconds=5)
    assert found.simulated
    assert not found.launches


def test_an_answer_survives_the_log() -> None:
    """As JSON, with seconds as keys."""
    found = measured(FakeCard(4096))
    assert msgspec.json.decode(msgspec.json.encode(found), type=Measured) == found


@pytest.mark.parametrize("words", [("--inside",)])
def test_a_machine_without_a_gpu_says_so(words: tuple[str, ...]) -> None:
    """As an answer on standard output, a line on standard error, and exit code 1."""
    done = subprocess.run(
        [sys.executable, "-m", "gpu_fraction.cli.main", "selftest", *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode == 0:
        pytest.skip("this machine has a GPU")
    assert "no GPU here: libcuda.so.1" in done.stderr
    assert msgspec.json.decode(done.stdout, type=Measured).problem.startswith("no GPU here")
