"""The answer of ``gpu-fraction doctor``."""

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from gpu_fraction.cli import asking, printing
from gpu_fraction.cli.asking import Asked
from gpu_fraction.dashboard.doctor import bundle, reading, report
from gpu_fraction.dashboard.doctor.evidence import Evidence
from gpu_fraction.dashboard.doctor.finding import Result
from gpu_fraction.dashboard.doctor.table import examine
from gpu_fraction.kube.errors import KubeError, UnauthorizedError
from gpu_fraction.settings.option import SettingsError

PAUSE_S: Final = 2.0
"""Between two readings of ``--wait``. Chosen: pods become ready within seconds."""

Found = tuple[Evidence, Sequence[Result]]


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Run the command; the exit code."""
    if args.hash_names and not args.bundle:
        raise SettingsError(["--hash-names needs --bundle: only its names are replaced"])

    async def work(asked: Asked) -> int:
        evidence, results = await _awaited(args, asked)
        sys.stdout.write(_shown(args, environ, evidence, results))
        if args.bundle:
            _write(Path(args.bundle), bundle.made(evidence, results, hashed=args.hash_names))
            printing.note(f"written: {args.bundle}; read it before you attach it")
        return report.exit_code(results, strict=args.strict)

    return asking.answer(args, environ, "doctor", work)


async def _awaited(args: argparse.Namespace, asked: Asked) -> Found:
    """One reading; with ``--wait`` the first without a failure, or the last in time."""
    loop = asyncio.get_running_loop()
    end_s = loop.time() + (args.wait or 0.0)
    told = ""
    while True:
        found: Found | None = None
        try:
            evidence = await reading.read(
                asked.client, namespace=asked.namespace, timeout_s=asked.timeout_s
            )
            results = examine(evidence, before=args.before)
            found = evidence, results
            if args.wait is None or not report.exit_code(results, strict=args.strict):
                return found
            missing = [one.check.name for one in results if one.level == "fail"]
            words = f"waiting: {', '.join(missing)}"
        except UnauthorizedError:
            raise
        except KubeError as e:
            if loop.time() + PAUSE_S > end_s:
                raise
            words = f"waiting: {e}"
        if found is not None and loop.time() + PAUSE_S > end_s:
            return found
        if words != told:
            printing.note(words)
            told = words
        await asyncio.sleep(PAUSE_S)


def _shown(
    args: argparse.Namespace,
    environ: Mapping[str, str],
    evidence: Evidence,
    results: Sequence[Result],
) -> str:
    if args.output == "json":
        content = report.described(results, evidence.snapshot.gaps)
        return json.dumps(content, indent=2) + "\n"
    if args.print_fixes:
        return report.fixes(results)
    colour = printing.colours(args.color, sys.stdout, environ)
    return report.text(results, every=args.output == "wide", colour=colour)


def _write(path: Path, content: Mapping[str, object]) -> None:
    """Whole or not at all, readable by the user alone.

    Raises:
        SettingsError: it cannot be written.
    """
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as file:
            file.write(json.dumps(content, indent=1) + "\n")
        Path(file.name).replace(path)
    except OSError as e:
        raise SettingsError([f"--bundle {path}: {e.strerror}"]) from e
