"""``gpu-fraction demo``: what a newcomer sees first."""

from tests.support.reviews import FOLDER, RECORDED
from tests.unit.cli.conftest import Command


def test_only_a_changed_share_is_refused(command: Command) -> None:
    """Each pod reaches /validate as /mutate left it, so only the edit of a share is refused."""
    result = command("demo", "--examples", FOLDER.parent)
    assert result.code == 0, result.err
    rows = [line.split() for line in result.out.splitlines()]
    decided = {row[0]: row[1] for row in rows if row and row[0] in RECORDED}
    assert set(decided) == set(RECORDED)
    refused = [name for name, decision in decided.items() if decision != "allowed"]
    assert refused == ["notebook-update-validating"]
    assert "cannot change after the pod is created" in result.out
