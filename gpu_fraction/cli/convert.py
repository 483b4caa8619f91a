"""``gpu-fraction convert``: manifests of one GPU stack become annotations, or another stack's."""

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import jsonpatch

from gpu_fraction.cli import config, manifests
from gpu_fraction.cli.config import Commands
from gpu_fraction.cli.manifests import Document, ManifestError, pods, read, to_json
from gpu_fraction.cli.misplaced import misplaced
from gpu_fraction.cli.mutate import apply, join, path_in, typed
from gpu_fraction.domain import conversion, plain_form
from gpu_fraction.domain.backends import BACKENDS, Stacks, configured
from gpu_fraction.domain.conversion import Found, Step
from gpu_fraction.domain.differences import differences
from gpu_fraction.domain.pod import Pod
from gpu_fraction.domain.problems import Problem
from gpu_fraction.domain.request import Bounds, Refused
from gpu_fraction.settings.declaration import group
from gpu_fraction.settings.rewrite import StackSettings

ANNOTATION: Final = "annotation"
"""The form that is no stack's."""

BOUNDS: Final = Bounds()

DESCRIPTION: Final = """\
Rewrite manifests of one GPU stack as annotations, or as another stack's own resources.

Reads the same manifests as mutate. A pod is recognised by a stack's resources, scheduler and
annotations, or by the GPU annotations. With --to annotation it gets gpu-fraction's annotations;
with a backend it gets what that stack's users write themselves, without gpu-fraction. Pods
without a GPU are printed unchanged.

What the new form cannot say is named on standard error. With --strict this, and a fact about the
backend that is not verified, ends the command with status 1 and without manifests. So does a pod
that cannot be converted, with and without --strict.

examples:
  gpu-fraction convert -f hami-pod.yaml --to annotation
  gpu-fraction convert -f charts/ --to kai --strict
  kubectl get deployment d -o yaml | gpu-fraction convert -f - --to native --gpu-memory-mib 80Gi
"""


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of the command."""

    stacks: StackSettings = group(StackSettings, "stacks")


@dataclass(slots=True)
class Conversion:
    """The conversion of one pod.

    Attributes:
        pod: The pod afterwards, as JSON types.
        operations: The JSON patches that lead there, in order.
        lost: What it does not say any more.
        notes: Other remarks for the user.
        source: The form in which it asked; None where it asks for no GPU.
    """

    pod: dict[str, Any]
    operations: list[list[dict[str, Any]]] = field(default_factory=list)
    lost: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    source: str | None = None

    def take(self, step: Step) -> Pod:
        """Apply a step; the pod after it."""
        if step.operations:
            self.operations.append(step.operations)
            self.pod = jsonpatch.JsonPatch(step.operations).apply(self.pod)
        self.lost += step.lost
        self.notes += step.notes
        return typed(self.pod)


def add_parser(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "convert",
        description=DESCRIPTION,
    )
    manifests.declare(parser)
    parser.add_argument(
        "--to",
        required=True,
        choices=(ANNOTATION, *BACKENDS),
        help="the form to write",
    )
    parser.add_argument(
        "--from",
        dest="stack",
        choices=tuple(BACKENDS),
        help="the backend to read pods for, where several recognise them",
    )
    parser.add_argument(
        "--strict", action="store_true", help="exit with status 1 if anything is lost"
    )
    parser.add_argument(
        "-o",
        "--output",
        choices=("yaml", "json"),
        default="yaml",
        help="output format (default yaml)",
    )
    config.declare(parser, Settings)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Run the command; the exit code."""
    stacks = configured(config.settings(Settings, args, environ).stacks.config)
    try:
        sources = read(args.filename, sys.stdin)
    except ManifestError as e:
        sys.stderr.write(f"{e}\n")
        return 2
    told = [_told(document, args, stacks) for source in sources for document in source.documents]
    if any(refused for refused, _ in told) or (args.strict and any(lost for _, lost in told)):
        return 1
    sys.stdout.write(to_json(sources) if args.output == "json" else join(sources))
    return 0


def _told(document: Document, args: argparse.Namespace, stacks: Stacks) -> tuple[bool, bool]:
    """Convert the pods of a document and tell the user; whether one is refused or loses."""
    refused = lost = asking = False
    for found in pods(document):
        try:
            done = convert(found.raw, args.to, stacks, args.stack)
        except Refused as e:
            refused = asking = True
            for problem in e.problems:
                sys.stderr.write(f"{found}: {path_in(found, problem)}: {problem.message}\n")
            continue
        asking |= done.source is not None
        for problem in done.lost:
            lost = True
            sys.stderr.write(f"Lost: {found}: {path_in(found, problem)}: {problem.message}\n")
        for note in dict.fromkeys(done.notes):
            sys.stderr.write(f"Warning: {found}: {note}\n")
        for operations in done.operations:
            apply(document, found, operations)
    for warning in () if asking else misplaced(document):
        sys.stderr.write(f"Warning: {warning}\n")
    return refused, lost


def convert(
    raw: Mapping[str, Any], to: str, stacks: Stacks, only: str | None = None
) -> Conversion:
    """Convert one pod.

    Args:
        raw: The pod; it is not changed.
        to: The name of a backend, or ``ANNOTATION``.
        stacks: Every stack with the cluster's settings.
        only: The stack to read it for; None for the one that claims it.

    Raises:
        Refused: it is not a pod, or cannot be said in that form.
    """
    before = typed(raw)
    # A copy without comments, and without parts that are one object.
    done = Conversion(json.loads(json.dumps(raw, default=str)))
    if not done.pod.get("metadata"):
        done.pod["metadata"] = {}
    found = conversion.find(before, stacks, BOUNDS, only)
    if found is None:
        if others := ", ".join(stack.name for stack, _ in conversion.readers(before, stacks)):
            done.notes.append(f"asks {others}, not {only}; left as it is")
        return done
    done.source = found.stack.name if found.stack else ANNOTATION
    if done.source == to and not found.recorded:
        return done
    ours = to == ANNOTATION or stacks[to].ours
    pod = done.take(plain_form.plain(before, found, stacks, keep_annotations=ours))
    if others := ", ".join(stack.name for stack, _ in conversion.readers(pod, stacks)):
        if only is None:
            raise Refused([conversion.several(f"{done.source}, {others}")])
        done.notes.append(f"still asks {others}; remove it, or the webhook refuses annotations")
    if ours:
        pod = done.take(conversion.annotated(pod, found.request, BOUNDS))
    if to != ANNOTATION:
        pod = _render(pod, found, to, stacks, done)
    done.take(Step(plain_form.pruned(before, pod)))
    return done


def _render(pod: Pod, found: Found, to: str, stacks: Stacks, done: Conversion) -> Pod:
    """Add the stack's own form, and compare what it is read as."""
    stack = stacks[to]
    step = conversion.rendered(pod, found.request, stack)
    pod = done.take(step)
    asked = step.asked or found.request
    again = conversion.find(pod, stacks, BOUNDS, None)
    eligible = stack.config.card_sizes.eligible_mib(asked)
    done.lost += differences(asked, again.request if again else None, eligible)
    return pod
