"""The answer of ``gpu-fraction selftest``."""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from gpu_fraction.cli import asking, printing
from gpu_fraction.cli.asking import COULD_NOT_ASK, Asked
from gpu_fraction.kube.timestamps import utc_now
from gpu_fraction.selftest import outside, report
from gpu_fraction.selftest.outside import Place, SelftestError
from gpu_fraction.selftest.protocol import Slice, broken, judged
from gpu_fraction.settings.option import SettingsError


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Run the command; the exit code."""

    async def work(asked: Asked) -> int:
        try:
            place = await outside.find(
                asked.client, node=args.node, image=args.image, namespace=asked.namespace
            )
        except SelftestError as e:
            printing.note(f"gpu-fraction selftest: {e}")
            return COULD_NOT_ASK
        _introduce(place)
        slices = await outside.run(asked.client, place, seconds=args.seconds, tell=printing.note)
        return _show(args, place, slices)

    return asking.answer(args, environ, "selftest", work)


def _introduce(place: Place) -> None:
    card = place.card
    kind = "simulated card" if place.simulated else "card"
    sys.stdout.write(
        f"{kind} {card.uuid} ({card.model}, {card.memory_mib} MiB) of node {place.node}, engine "
        f"{card.isolation}\n{report.plan()}"
    )
    sys.stdout.flush()


def _show(args: argparse.Namespace, place: Place, slices: list[Slice]) -> int:
    verdicts = list(judged(slices, place.card))
    sys.stdout.write("\n" + report.table(verdicts))
    if place.simulated:
        sys.stdout.write("simulated: the steps ran, nothing was measured\n")
        return 0
    if args.report:
        text = report.markdown(slices, verdicts, place.card, place.driver, utc_now())
        try:
            Path(args.report).write_text(text, encoding="utf-8")
        except OSError as e:
            raise SettingsError([f"--report {args.report}: {e.strerror}"]) from e
        printing.note(f"written: {args.report}")
    return int(broken(verdicts))
