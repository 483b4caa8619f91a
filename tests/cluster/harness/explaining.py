"""``gpu-fraction explain`` as a person starts it: a process with a kubeconfig."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.cluster.harness.kubectl import Kubectl

_ROOT = Path(__file__).parents[3]
_TIMEOUT_S = 60
_FOUND_WITHIN_S = 60
_POLL_S = 0.3


def explain(kubectl: Kubectl, *words: str) -> tuple[int, dict[str, Any]]:
    """The exit code and the answer of the command, in kubectl's namespace."""
    command = [sys.executable, "-m", "gpu_fraction.cli.main", "explain", *words]
    command += ["-o", "json", "-n", kubectl.namespace, "--kubeconfig", str(kubectl.kubeconfig)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
        env={"PYTHONPATH": str(_ROOT)},
    )
    return done.returncode, json.loads(done.stdout) if done.stdout else {"error": done.stderr}


def explained(kubectl: Kubectl, cause: str, *words: str) -> dict[str, Any]:
    """The answer once a cause is the first that it names: that cause, the report and ``code``.

    Raises:
        TimeoutError: another is, or none.
    """
    deadline = time.monotonic() + _FOUND_WITHIN_S
    while True:
        code, answer = explain(kubectl, *words)
        causes = [one["cause"] for one in answer.get("causes", ())]
        if causes[:1] == [cause]:
            return {**answer, "code": code, **answer["causes"][0]}
        if time.monotonic() > deadline:
            raise TimeoutError(f"{causes}: {json.dumps(answer, indent=1)}")
        time.sleep(_POLL_S)
