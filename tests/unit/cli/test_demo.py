"""``gpu-fraction demo``: what a newcomer sees first."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from gpu_fraction.domain import keys
from gpu_fraction.kube import errors
from gpu_fraction.kube.access import kubeconfig
from gpu_fraction.kube.client import connect
from gpu_fraction.kube.objects import Identity
from gpu_fraction.kube.resources import PODS
from tests.builders.pods import plain_pod
from tests.support.access import fixed
from tests.support.reviews import FOLDER, RECORDED
from tests.unit.cli.conftest import Command


def test_only_a_changed_share_is_refused(command: Command) -> None:
    """Each pod reaches /validate as /mutate left it, so only the edit of a share is refused."""
    result = command("demo", "--reviews", "--examples", FOLDER.parent)
    assert result.code == 0, result.err
    rows = [line.split() for line in result.out.splitlines()]
    decided = {row[0]: row[1] for row in rows if row and row[0] in RECORDED}
    assert set(decided) == set(RECORDED)
    refused = [name for name, decision in decided.items() if decision != "allowed"]
    assert refused == ["notebook-update-validating"]
    assert "cannot change after the pod is created" in result.out


@pytest.mark.timeout(240)
def test_the_story_ends_with_what_to_do_next_and_leaves_nothing() -> None:
    """Off a terminal: plain lines, no escape sequence; it says what is simulated."""
    root = Path(__file__).parents[3]
    before = set(Path("/tmp").glob("gpu-fraction-demo-*"))
    done = subprocess.run(
        [sys.executable, "-m", "gpu_fraction.cli.main", "demo"],
        env={**os.environ, "PYTHONPATH": str(root), "GPU_FRACTION_BACKEND": "hami"},
        capture_output=True,
        check=False,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    titles = [line[0] for line in done.stdout.splitlines() if line[:1].isdigit()]
    assert titles == list("1234567")
    assert "simulated:  API server" in done.stdout
    assert done.stdout.rstrip().splitlines()[-1].strip().startswith("docs/installation.md")
    assert set(Path("/tmp").glob("gpu-fraction-demo-*")) <= before


@pytest.mark.timeout(240)
async def test_a_kept_cluster_answers_to_its_kubeconfig_until_it_is_ended() -> None:
    """As kubectl reads the file: over TLS, with the token; pods go through the webhook."""
    process = subprocess.Popen(
        [sys.executable, "-m", "gpu_fraction.cli.main", "demo", "--keep"],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        exports = (line for line in process.stdout if "export KUBECONFIG=" in line)
        file = Path(next(exports).strip().partition("=")[2])
        administrator = kubeconfig(str(file))
        pods, pod = PODS.at(namespace="team-b"), plain_pod("mine")
        pod["metadata"]["annotations"] = {keys.FRACTION: "2.5"}
        async with connect(administrator, component="test") as client:
            with pytest.raises(errors.ForbiddenError, match=keys.FRACTION):
                await client.create(pods, pod, Identity)
        stranger = replace(await administrator.find(), authorization="")
        async with connect(fixed(stranger), component="test") as client:
            with pytest.raises(errors.UnauthorizedError):
                await client.create(pods, pod, Identity)
    finally:
        process.terminate()
        _, said = process.communicate(timeout=20)
    assert (process.returncode, said) == (0, "")
    assert not file.exists()


def test_without_its_distribution_the_demo_names_what_to_install() -> None:
    """A plain installation has no sandbox; --help and --reviews need none."""
    program = (
        "import sys; sys.modules['gpu_fraction.sandbox'] = None; "
        "from gpu_fraction.cli.main import main; sys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "demo"],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True,
        check=False,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "pip install 'gpu-fraction[demo]'" in done.stderr
