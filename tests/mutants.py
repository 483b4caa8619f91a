"""Changes modules in small ways, one at a time, and prints the changes that no test notices.

    python tests/mutants.py [--minutes N] [--tests PATH ...] [MODULE.py ...]

Without modules, those that differ from the branch main. Without tests, the whole fast level, of
which mutmut runs the tests that reach the changed function. It works on a copy of the tree, so a
run that is stopped leaves nothing behind.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent
PACKAGE: Final = "gpu_fraction"
LINKS: Final = {path.name for path in (ROOT / PACKAGE).iterdir() if path.is_symlink()}
FAST: Final = ["tests/unit", "tests/property", "tests/model", "tests/contract"]
UNNOTICED: Final = frozenset({"survived", "no tests"})
LINE: Final = re.compile(r"\s*(\S+): (.+)")

# The words of log lines are no behaviour. gRPC does not survive a fork, so each mutant's process
# comes from one that has not used it.
CONFIGURATION: Final = """
[tool.mutmut]
source_paths = {packages}
only_mutate = {modules}
also_copy = {copied}
pytest_add_cli_args_test_selection = {tests}
do_not_mutate_patterns = ['^\\s*_log\\.', '^_log = ']
process_isolation = "forkserver"
"""


def git(*words: str) -> list[str]:
    """The lines of an answer about this tree."""
    answer = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True)
    return answer.stdout.splitlines()


def in_package(name: str) -> str:
    """The path of a file in the package, where folders at the top of the repository are links."""
    return f"{PACKAGE}/{name}" if name.partition("/")[0] in LINKS else name


def prepare(copy: Path, modules: list[str], tests: list[str]) -> None:
    """Copy every file that git knows, and tell mutmut what to do there."""
    files = git("ls-files", "--cached", "--others", "--exclude-standard")
    for name in filter(lambda name: (ROOT / name).is_file(), files):
        target = copy / in_package(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target)
    copied = sorted({in_package(name).partition("/")[0] for name in files} - {PACKAGE})
    with (copy / "pyproject.toml").open("a") as project:
        project.write(
            CONFIGURATION.format(
                packages=[PACKAGE],
                modules=[in_package(name) for name in modules],
                copied=copied,
                tests=tests,
            )
        )


def mutmut(copy: Path, *words: str, quiet: bool = True, timeout_s: float | None = None) -> str:
    """Run it on the copy; its output, where that is not shown."""
    arguments = [sys.executable, "-m", "mutmut", *words]
    output = subprocess.PIPE if quiet else None
    done = subprocess.run(
        arguments, cwd=copy, stdout=output, text=True, timeout=timeout_s, check=False
    )
    return done.stdout or ""


def report(copy: Path) -> None:
    """Print what survived, other than changes of the words of a message."""
    lines = mutmut(copy, "results", "--all", "true").splitlines()
    verdicts = dict(m.groups() for m in map(LINE.fullmatch, lines) if m)
    for name in (name for name, verdict in verdicts.items() if verdict in UNNOTICED):
        shown = mutmut(copy, "show", name).splitlines()
        changed = [line for line in shown if re.match(r"[-+](?![-+])", line)]
        before, after = (
            [line[1:].replace("XX", "").lower() for line in changed if line[0] == sign]
            for sign in "-+"
        )
        if before != after:
            print(name.partition("__mutmut")[0])
            print("\n".join(f"    {line}" for line in changed))
    print(", ".join(f"{count} {verdict}" for verdict, count in Counter(verdicts.values()).items()))


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("modules", nargs="*", help="paths such as quota/plan.py")
    parser.add_argument("--tests", nargs="+", default=FAST, help="paths of tests")
    parser.add_argument("--minutes", type=float, default=20.0, help="end after so many")
    args = parser.parse_args()
    modules = args.modules or [
        name
        for name in git("diff", "--name-only", "--diff-filter=d", "main", "--", PACKAGE, *LINKS)
        if name.endswith(".py") and "_pb2" not in name
    ]
    if not modules:
        sys.exit("no module differs from main: name the modules to change")
    if absent := [name for name in (*modules, *args.tests) if not (ROOT / name).exists()]:
        sys.exit(f"{', '.join(absent)}: not found; give paths from {ROOT}")
    with tempfile.TemporaryDirectory(prefix="mutants-") as name:
        copy = Path(name)
        prepare(copy, modules, args.tests)
        try:
            mutmut(copy, "run", quiet=False, timeout_s=args.minutes * 60)
        except subprocess.TimeoutExpired:
            print(f"\nended after {args.minutes:g} minutes: some mutants were not tried")
        report(copy)


if __name__ == "__main__":
    main()
