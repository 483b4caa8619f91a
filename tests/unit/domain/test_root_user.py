"""Whether a container could ever be root."""

import msgspec
import pytest

from gpu_fraction.domain.pod import SecurityContext
from gpu_fraction.domain.root_user import root_problem
from tests.builders.pods import Raw

PATH = "spec.containers[1]"
CONTEXT = f"{PATH}.securityContext"
ESCALATION = {"allowPrivilegeEscalation": False}


def told(own: Raw | None, pod: Raw | None) -> str:
    """What is said of the container, empty where it cannot be root."""
    contexts = [None if c is None else msgspec.convert(c, SecurityContext) for c in (own, pod)]
    return str(root_problem(PATH, *contexts) or "")


@pytest.mark.parametrize(
    ("own", "pod"),
    [
        ({**ESCALATION, "runAsUser": 1000}, None),
        ({**ESCALATION, "runAsNonRoot": True}, None),
        (ESCALATION, {"runAsUser": 1000}),
        (ESCALATION, {"runAsNonRoot": True}),
        ({**ESCALATION, "runAsUser": 1}, {"runAsUser": 0}),
        ({**ESCALATION, "runAsUser": 1, "runAsNonRoot": False}, None),
    ],
)
def test_another_user_without_new_privileges_stays_what_it_is(
    own: Raw | None, pod: Raw | None
) -> None:
    """The container's own fields override the pod's; a user's number says more than a rule."""
    assert told(own, pod) == ""


@pytest.mark.parametrize(
    ("own", "pod", "line"),
    [
        (None, None, f"{CONTEXT}.runAsNonRoot: is not true; allowed: true, or a runAsUser "),
        ({**ESCALATION, "runAsUser": 0}, None, f"{CONTEXT}.runAsUser: 0 is root; allowed: any "),
        (ESCALATION, {"runAsUser": 0, "runAsNonRoot": True}, f"{CONTEXT}.runAsUser: 0 is root"),
        (
            {**ESCALATION, "runAsNonRoot": False},
            {"runAsNonRoot": True},
            f"{CONTEXT}.runAsNonRoot: is not true",
        ),
    ],
)
def test_a_first_process_that_may_be_root(own: Raw | None, pod: Raw | None, line: str) -> None:
    """The field is named, and what is allowed there."""
    assert told(own, pod).startswith(line)


@pytest.mark.parametrize("own", [None, {}, {"allowPrivilegeEscalation": True}])
def test_a_setuid_program_makes_root_of_any_user(own: Raw | None) -> None:
    """Escalation is allowed unless it is forbidden, and the pod has no such field."""
    line = f"{CONTEXT}.allowPrivilegeEscalation: is not false, "
    assert told(own, {"runAsUser": 1000, **ESCALATION}).startswith(line)
