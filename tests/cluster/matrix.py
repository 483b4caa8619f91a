"""``python -m tests.cluster.matrix``: several versions of Kubernetes, one after another.

Runs the short cluster level, and of the long one what is marked ``matrix``.

Prints a table of Markdown; the exit status tells whether all passed.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.harness.cache import DEFAULT_VERSION

VERSIONS = ("1.34.4", "1.36.3", DEFAULT_VERSION)
"""The oldest and the newest that are supported, and the first with all features on by default."""

_TIMEOUT_S = 3600
"""Of one version, its build with it; chosen: four times what both take on two busy cores."""


_NAMES_OTHERS = re.compile(r"KUBEBUILDER_ASSETS$|KUBECONFIG_TEST$|TEST_ASSET_")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one version's run told; ``status`` is pytest's exit status."""

    version: str
    passed: int
    failed: int
    skipped: int
    seconds: float
    status: int

    def row(self) -> str:
        """A row of the table."""
        counts = f"{self.passed} | {self.failed} | {self.skipped}"
        return f"| {self.version} | {counts} | {self.seconds:.0f} |"


def main(argv: list[str] | None = None) -> int:
    """Runs all versions, one after another."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.matrix", description=__doc__)
    parser.add_argument("versions", nargs="*", default=VERSIONS, help=f"default: {VERSIONS}")
    outcomes = [_run(version) for version in parser.parse_args(argv).versions]
    table = [
        "| Kubernetes | passed | failed | skipped | seconds |",
        "|---|---|---|---|---|",
        *(outcome.row() for outcome in outcomes),
    ]
    sys.stdout.write("\n".join(["", *table, ""]))
    return max(outcome.status for outcome in outcomes)


def environment_of(version: str, environ: Mapping[str, str]) -> dict[str, str]:
    """The environment without what names programs or a cluster of another version."""
    kept = {name: value for name, value in environ.items() if not _NAMES_OTHERS.match(name)}
    return {**kept, "KUBERNETES_VERSION": version}


def _run(version: str) -> Outcome:
    environment = environment_of(version, os.environ)
    sys.stdout.write(f"\nKubernetes {version}\n")
    sys.stdout.flush()

    def run(*module: str) -> int:
        argv = [sys.executable, "-m", *module]
        return subprocess.run(argv, env=environment, timeout=_TIMEOUT_S, check=False).returncode

    if status := run("tests.cluster.assets"):
        return Outcome(version, 0, 0, 0, 0, status)
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        tests = ("-rs", "-m", "not long or matrix", "tests/cluster", f"--junitxml={report}")
        return _outcome(version, report, run("pytest", *tests))


def _outcome(version: str, report: Path, status: int) -> Outcome:
    """Reads JUnit's XML, which pytest has just written."""
    suite = ET.parse(report).getroot().find("testsuite")  # noqa: S314 - our own file
    assert suite is not None
    count = {name: int(suite.attrib[name]) for name in ("tests", "failures", "errors", "skipped")}
    failed = count["failures"] + count["errors"]
    passed = count["tests"] - failed - count["skipped"]
    seconds = float(suite.attrib["time"])
    return Outcome(version, passed, failed, count["skipped"], seconds, status)


if __name__ == "__main__":
    sys.exit(main())
