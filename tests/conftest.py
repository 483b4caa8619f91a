"""What every test shares: how hard hypothesis looks, one throw-away certificate, log set-up.

``HYPOTHESIS_PROFILE=thorough`` looks longer, ``ten-thousand`` at so many examples of a test; a CI
run looks the same way each time.
"""

import logging
import os
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import HealthCheck, settings

from tests.support.tls import Tls, make

# No deadline: timings are never asserted, and the machine is shared.
settings.register_profile("dev", max_examples=40, deadline=None)
settings.register_profile("ci", parent=settings.get_profile("dev"), derandomize=True)
settings.register_profile(
    "thorough",
    max_examples=2000,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "ten-thousand", parent=settings.get_profile("thorough"), max_examples=10_000
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if "CI" in os.environ else "dev"))


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    """One certificate for all tests."""
    return make(tmp_path_factory.mktemp("tls"))


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """Logging is set up once a process; here it is taken down after the test that did.

    Loggers remember what they were set up with at their first line, and tests that come later
    read lines of theirs.
    """
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers[:], root.level = handlers, level
