"""The status that the controller plans for a GPUQuota."""

import msgspec

from gpu_fraction.quota import plan
from gpu_fraction.quota.ledger import Ledger
from gpu_fraction.quota.state import read
from gpu_fraction.quota.usage import Usage
from gpu_fraction.quota.wire import GPUQuota, StatusWire
from tests.support.quota_world import quota

FIRST, SECOND, THIRD = (f"2031-05-06T00:00:0{second}Z" for second in range(3))


def planned(wire: GPUQuota, now: str, **used: int) -> StatusWire:
    """The status after a count of those amounts."""
    counted = {"cores": 0, "memory": 0, "gpus": 0, "pods": 0, **used}
    recount = plan.Recount(Usage(counted), Ledger(counted), "7", now)
    return plan.status(read(wire), recount)


def transitions(status: StatusWire) -> dict[str, str]:
    """When each condition last changed."""
    return {c.type: c.last_transition_time for c in status.conditions or ()}


def test_a_transition_time_moves_only_when_the_status_of_its_condition_flips() -> None:
    """A new message or a new count of the same status keeps the time."""
    wire = quota(hard={"gpus": 10})
    status = planned(wire, FIRST, gpus=1)
    assert transitions(status) == {"Ready": FIRST, "Exceeded": FIRST, "NearLimit": FIRST}
    wire = msgspec.structs.replace(wire, status=status)
    status = planned(wire, SECOND, gpus=11)
    assert transitions(status) == {"Ready": FIRST, "Exceeded": SECOND, "NearLimit": SECOND}
    wire = msgspec.structs.replace(wire, status=status)
    status = planned(wire, THIRD, gpus=12)
    assert transitions(status) == {"Ready": FIRST, "Exceeded": SECOND, "NearLimit": SECOND}
    wire = msgspec.structs.replace(wire, status=status)
    status = planned(wire, THIRD, gpus=9)
    assert transitions(status) == {"Ready": FIRST, "Exceeded": THIRD, "NearLimit": SECOND}


def test_the_status_and_its_conditions_name_the_generation_that_was_counted() -> None:
    """Clients can tell a status of an earlier specification."""
    wire = quota(hard={"gpus": 10})
    meta = msgspec.structs.replace(wire.metadata, generation=3)
    status = planned(msgspec.structs.replace(wire, metadata=meta), FIRST)
    assert status.observed_generation == 3
    assert [c.observed_generation for c in status.conditions or ()] == [3, 3, 3]
    assert status.pods_resource_version == "7"


def test_columns_and_summary_show_used_and_hard_of_each_key() -> None:
    """All keys in a fixed order, then limited models; a dash where there is no limit."""
    wire = quota(hard={"gpus": 4, "memory": "160Gi", "models": {"T4": {"cores": "500m"}}})
    counted = {"cores": 1500, "memory": 8192, "gpus": 2, "pods": 3, "T4.cores": 250}
    status = planned(wire, FIRST, **counted)
    assert status.columns == {
        "cores": "1500m/-",
        "memory": "8Gi/160Gi",
        "gpus": "2/4",
        "pods": "3/-",
        "T4.cores": "250m/500m",
    }
    assert (
        status.summary == "cores 1500m/-, memory 8Gi/160Gi, gpus 2/4, pods 3/-, T4.cores 250m/500m"
    )


def test_an_invalid_quota_shows_no_limits() -> None:
    """The use is still counted; the condition Ready names the fault."""
    status = planned(quota(hard={"gpus": "0.5"}), FIRST, gpus=2)
    assert status.hard is None
    assert status.used is not None
    assert status.used.gpus == "2"
    ready = next(c for c in status.conditions or () if c.type == "Ready")
    assert (ready.status, ready.reason) == ("False", "InvalidSpec")
