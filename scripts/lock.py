"""Write requirements/: every package that is installed, with the hashes of its files.

Run ``make lock`` after a change of dependencies in pyproject.toml, or for security updates of
Debian. Versions that the files name stay unless ``--upgrade`` names the package or ``all``.

Each file of Python's packages begins with the one that it adds to, and names only what it adds.
What the image installs has a wheel; of the developers' tools, blockbuster needs a package that
has none.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from scripts.image import debian
from scripts.image.contents import EXTRAS, MULTIARCH, PYTHON

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "requirements"
FILES = {"runtime": EXTRAS, "dev": ("dev",), "tools": ("dev", "tools")}
"""Extras of pyproject.toml by file; each file after the one that it adds to."""
HEAD = "# Written by make lock: {}.\n"


def compile_extras(
    extras: tuple[str, ...], known: dict[str, str], upgrade: list[str]
) -> dict[str, str]:
    """The locked requirements by package name, each with its hashes.

    Args:
        extras: of pyproject.toml.
        known: requirements whose versions are kept, as ``parse`` reads them.
        upgrade: packages that move nevertheless, or ``all``.
    """
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "locked.txt"
        output.write_text("".join(known.values()))
        argv: list[str | Path] = [
            *(sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--universal"),
            *("--python-version", PYTHON, "--generate-hashes"),
            *("--no-header", "--no-annotate", "--output-file", output, "pyproject.toml"),
            *(word for extra in extras for word in ("--extra", extra)),
        ]
        argv += ["--only-binary", ":all:"] if extras == EXTRAS else []
        argv += ["--upgrade"] if "all" in upgrade else [f"--upgrade-package={x}" for x in upgrade]
        subprocess.run(argv, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        return dict(parse(output.read_text()))


def parse(text: str) -> Iterator[tuple[str, str]]:
    """Name and lines of each requirement of a locked file."""
    for block in re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE):
        if match := re.match(r"([A-Za-z0-9._-]+)==", block):
            yield match[1], block.rstrip() + "\n"


def write_python(upgrade: list[str]) -> None:
    """Writes the files of Python's packages."""
    paths = [FOLDER / f"{name}.txt" for name in FILES]
    known = dict(item for path in paths if path.exists() for item in parse(path.read_text()))
    below: dict[str, str] = {}
    parent = ""
    for (name, extras), path in zip(FILES.items(), paths, strict=True):
        locked = compile_extras(extras, known | below, upgrade)
        added = {key: block for key, block in locked.items() if key not in below}
        head = HEAD.format(f"the packages of the extras {', '.join(extras)}")
        path.write_text(f"{head}{parent}{''.join(added.values())}")
        below |= added
        parent = f"-r {name}.txt\n"


def write_debian() -> None:
    """Writes the file of Debian's packages, as the apt sources of this machine offer them."""
    lines = [str(package) for each in MULTIARCH for package in debian.newest(each)]
    head = HEAD.format("the packages of Debian 12 in the image")
    (FOLDER / "debian.txt").write_text(head + "\n".join(lines) + "\n")


def main() -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--upgrade", action="append", default=[], help="a package, or all")
    parser.add_argument("--only", choices=("python", "debian"), help="default: both")
    args = parser.parse_args()
    FOLDER.mkdir(exist_ok=True)
    if args.only != "debian":
        write_python(args.upgrade)
    if args.only != "python":
        write_debian()
    return 0


if __name__ == "__main__":
    sys.exit(main())
