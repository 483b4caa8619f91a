"""What measurements say about promises."""

from datetime import UTC, datetime

import pytest

from gpu_fraction.selftest import report
from gpu_fraction.selftest.inside import Measured
from gpu_fraction.selftest.protocol import STEPS, Slice, Verdict, broken, job, judged
from tests.builders.cards import card

ENFORCING = card(isolation="mps", enforces_memory=True, enforces_compute=True)
BOOKS_ONLY = card()


def ran(step: str, milli: int, got_mib: int, speed: int, first: int = 100) -> Slice:
    """A container that had so much memory and so many blocks a second, for ten seconds."""
    launches = dict.fromkeys(range(first, first + 10), speed)
    answer = Measured(got_mib=got_mib, tried_mib=99999, processors=10, launches=launches)
    return Slice(step, milli, 16384 * milli // 1000, milli, answer)


WHOLE = ran("whole", 1000, 16000, 1000)


def outcomes(*slices: Slice, on: object = ENFORCING) -> list[tuple[str, str]]:
    """The first word of each promise, and what became of it."""
    found = judged([WHOLE, *slices], on)  # type: ignore[arg-type]
    return [(one.what.split()[0], one.outcome) for one in found][1:]


@pytest.mark.parametrize(
    ("got_mib", "speed", "enforced", "expected"),
    [
        (4096, 250, ENFORCING, ["held", "held"]),
        (4096 - 700, 240, ENFORCING, ["held", "held"]),
        (6144, 1000, ENFORCING, ["exceeded", "exceeded"]),
        (6144, 1000, BOOKS_ONLY, ["not enforced", "not enforced"]),
        (1024, 100, ENFORCING, ["not reached", "not reached"]),
    ],
)
def test_a_quarter_alone(got_mib: int, speed: int, enforced: object, expected: list[str]) -> None:
    """Against a whole card's measure; a context may take some of the memory."""
    found = outcomes(ran("alone", 250, got_mib, speed), on=enforced)
    assert found == list(zip(("memory", "compute"), expected, strict=True))


def test_two_at_one_time_are_judged_by_the_seconds_that_both_ran() -> None:
    """What one had before the other came does not count."""
    early = ran("together", 250, 4096, 250)
    assert early.measured is not None
    early.measured.launches.update(dict.fromkeys(range(90, 100), 1000))
    late = ran("together", 500, 8192, 500, first=102)
    assert [what for _, what in outcomes(early, late)] == ["held"] * 4


def test_containers_that_never_ran_at_one_time_are_not_measured() -> None:
    """Their speed says nothing about sharing."""
    found = outcomes(ran("together", 250, 4096, 250), ran("together", 500, 8192, 500, first=500))
    assert found[1] == found[3] == ("compute", "not measured")


def test_a_container_without_an_answer_breaks_the_test() -> None:
    """With the reason."""
    (_, found) = judged([WHOLE, Slice("alone", 250, problem="no room")], ENFORCING)
    assert (found.outcome, found.measured) == ("not measured", "no room")
    assert broken([found])


@pytest.mark.parametrize(
    ("outcome", "bad"),
    [("held", False), ("not enforced", False), ("exceeded", True), ("not reached", True)],
)
def test_only_what_is_promised_can_be_broken(outcome: str, bad: bool) -> None:
    """An engine that does not enforce is no fault of the node."""
    assert broken([Verdict("s", "w", "p", "m", outcome)]) is bad  # type: ignore[arg-type]


def test_a_report_has_the_form_of_the_results_page() -> None:
    """Driver, card, kernel, date, a table, what was skipped, and a line of JSON a container."""
    missing = Slice("together", 500, problem="no room")
    slices = [WHOLE, ran("alone", 250, 4096, 250), missing]
    verdicts = list(judged(slices, ENFORCING))
    text = report.markdown(slices, verdicts, ENFORCING, "615.1", datetime(2026, 12, 1, tzinfo=UTC))
    assert text.startswith("## Tesla T4, driver 615.1, kernel unknown, 2026-12-01\n")
    assert "engine `mps` (memory enforced, compute enforced)" in text
    assert (
        "| alone | memory of 0.25 of the card | 4096 MiB | 4096 of 99999 MiB tried | held |"
        in text
    )
    assert "- `together`, 0.5: no room" in text
    assert text.count('{"test": "selftest ') == 2


def test_every_step_is_a_job_that_ends_and_goes() -> None:
    """Whatever becomes of the command; restricted Pod Security takes it."""
    for step in STEPS:
        for share in step.shares:
            made = job(step, share, "ns", "i", "n", "GPU-1", 15)
            spec = made["spec"]
            assert spec["activeDeadlineSeconds"] <= 600
            assert spec["ttlSecondsAfterFinished"] <= 600
            pod = spec["template"]
            assert pod["metadata"]["annotations"]["gpu-fraction"] == f"{share / 1000:g}"
            assert pod["spec"]["containers"][0]["args"][:2] == ["selftest", "--inside"]
