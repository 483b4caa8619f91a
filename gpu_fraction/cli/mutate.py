"""``gpu-fraction mutate``: apply the webhook's changes to manifests, without a cluster."""

import argparse
import difflib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TextIO

import jsonpatch
import msgspec
from ruamel.yaml.comments import CommentedMap

from gpu_fraction.cli import aliases, config, manifests
from gpu_fraction.cli.config import Commands
from gpu_fraction.cli.manifests import (
    Document,
    ManifestError,
    PodIn,
    Source,
    dotted,
    is_boolean,
    mapping_at,
    objects,
    pods,
    read,
    to_json,
    to_yaml,
)
from gpu_fraction.cli.misplaced import misplaced
from gpu_fraction.domain import admission, keys, patch
from gpu_fraction.domain.pod import Pod
from gpu_fraction.domain.problems import Problem, quote
from gpu_fraction.domain.request import Refused, annotation_path
from gpu_fraction.settings.declaration import group
from gpu_fraction.settings.rewrite import RewriteSettings

DESCRIPTION: Final = """\
Rewrite manifests as the admission webhook would, without a cluster.

Rewrites Pods, Deployments, StatefulSets, DaemonSets, ReplicaSets, Jobs, CronJobs, PodTemplates
and Lists of them; other objects are printed unchanged. If a pod is refused, prints no manifests,
writes one line per refusal to standard error and exits with status 1. Warns about GPU annotations
on a workload instead of its pod template, for all kinds.

examples:
  gpu-fraction mutate -f pod.yaml
  gpu-fraction mutate -f examples/ -o diff --gpu-memory-mib 80Gi
  helm template my-release my-chart | gpu-fraction mutate -f - | kubectl apply -f -
"""

_RED, _GREEN, _CYAN, _END = "\x1b[31m", "\x1b[32m", "\x1b[36m", "\x1b[0m"


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of the command."""

    rewriting: RewriteSettings = group(RewriteSettings, "rewriting of pods")


def add_parser(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add_parser("mutate", description=DESCRIPTION)
    manifests.declare(parser)
    parser.add_argument(
        "-o",
        "--output",
        choices=("yaml", "json", "diff"),
        default="yaml",
        help="output format (default yaml)",
    )
    parser.add_argument(
        "--color",
        choices=("auto", "always", "never"),
        default="auto",
        help="colours in the diff (default auto: only on a terminal)",
    )
    config.declare(parser, Settings)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Run the command; the exit code."""
    settings = config.settings(Settings, args, environ).rewriting
    try:
        sources = read(args.filename, sys.stdin)
    except ManifestError as e:
        sys.stderr.write(f"{e}\n")
        return 2
    diff = args.output == "diff"
    before = [to_yaml(source, verbatim=False) for source in sources] if diff else []
    refusals, warnings = mutate_all(sources, settings)
    for warning in warnings:
        sys.stderr.write(f"Warning: {warning}\n")
    for refusal in refusals:
        sys.stderr.write(f"{refusal}\n")
    if refusals:
        return 1
    if args.output == "json":
        sys.stdout.write(to_json(sources))
    elif args.output == "yaml":
        sys.stdout.write(join(sources))
    else:
        _diff(sources, before, sys.stdout, colour=_colour(args.color))
    return 0


def join(sources: Sequence[Source]) -> str:
    """All documents as one stream of YAML."""
    joined = ""
    for text in map(to_yaml, sources):
        if joined and text:
            joined = joined if joined.endswith("\n") else joined + "\n"
            joined += "" if text.startswith("---") else "---\n"
        joined += text
    return joined


def mutate_all(
    sources: Sequence[Source], settings: RewriteSettings
) -> tuple[list[str], list[str]]:
    """Rewrite every pod in place; returns the refusals and the warnings, one line each."""
    labels = _namespace_labels(sources)
    refusals: list[str] = []
    warnings: list[str] = []
    for source in sources:
        for document in source.documents:
            warnings += misplaced(document)
            for found in pods(document):
                try:
                    pod = typed(found.raw)
                    backend = settings.backend_of(pod, labels.get(found.namespace or ""))
                    verdict = admission.admit(pod, backend, settings.rules)
                except Refused as e:
                    refusals += [f"{found}: {path_in(found, p)}: {p.message}" for p in e.problems]
                    continue
                warnings += [f"{found}: {warning}" for warning in verdict.warnings]
                apply(document, found, verdict.operations)
    return refusals, warnings


def apply(document: Document, found: PodIn, operations: Sequence[patch.Operation]) -> None:
    """Apply the webhook's patch to a pod inside its document."""
    if not operations:
        return
    _give_metadata(document, found)
    prefix = "".join("/" + patch.escape(str(key)) for key in found.path)
    moved = [{**operation, "path": prefix + operation["path"]} for operation in operations]
    for operation in operations if document.aliased else ():
        *parents, _ = jsonpatch.JsonPointer(operation["path"]).parts
        keys_down = [int(key) if key.isdigit() else key for key in parents]
        aliases.own(document.body, [*found.path, *keys_down])
    jsonpatch.JsonPatch(moved).apply(document.body, in_place=True)
    document.changed = True


def _give_metadata(document: Document, found: PodIn) -> None:
    """Give a template without metadata an empty one, before its spec."""
    if document.aliased:
        aliases.own(document.body, found.path)
    pod = document.body
    for key in found.path:
        pod = pod[key]
    if pod.get("metadata") is None:
        pod.pop("metadata", None)
        pod.insert([*pod].index("spec"), "metadata", {})


def path_in(found: PodIn, problem: Problem) -> str:
    """The path of a problem from the document."""
    return f"{dotted(found.path)}.{problem.path}".lstrip(".")


def _namespace_labels(sources: Sequence[Source]) -> dict[str, str]:
    labels = {}
    documents = [document for source in sources for document in source.documents]
    for found in (found for document in documents for found in objects(document, document.body)):
        if found.kind == "Namespace":
            chosen = (mapping_at(found.raw, "metadata", "labels") or {}).get(keys.LABEL_BACKEND)
            if isinstance(chosen, str):
                labels[found.name] = chosen
    return labels


def typed(raw: Mapping[str, Any]) -> Pod:
    """Convert a pod as the API server would send it: amounts as text.

    Raises:
        Refused: a field has a type that the API server would refuse.
    """
    given = mapping_at(raw, "metadata", "annotations") or {}
    as_yaml = isinstance(given, CommentedMap)  # a text of other mappings was in quotes
    problems = [
        Problem(
            annotation_path(str(key)),
            f"{quote(_yaml_word(value))} is not a string; put it in quotes",
        )
        for key, value in given.items()
        if not isinstance(value, str) or (as_yaml and is_boolean(value))
    ]
    if problems:
        raise Refused(problems)
    try:
        plain = json.loads(json.dumps(raw, default=str))
        # Of these fields the webhook's types know no null, which the API server never sends.
        plain = {key: value for key, value in plain.items() if value is not None}
        if isinstance(spec := plain.get("spec"), dict):
            if spec.get("containers") is None:
                spec["containers"] = []
            _amounts_to_text(spec)
        return msgspec.convert(plain, Pod)
    except (msgspec.ValidationError, TypeError, RecursionError) as e:
        raise Refused([Problem("pod", f"not a Pod: {e}")]) from e


def _yaml_word(value: object) -> str:
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)


def _amounts_to_text(spec: dict[str, Any]) -> None:
    for kind in ("containers", "initContainers", "ephemeralContainers"):
        found = spec.get(kind)
        for container in found if isinstance(found, list) else ():
            resources = mapping_at(container, "resources") or {}
            for part in ("limits", "requests"):
                if (amounts := mapping_at(resources, part)) is not None:
                    resources[part] = {k: str(v) for k, v in amounts.items()}


def _colour(choice: str) -> bool:
    return choice == "always" or (choice == "auto" and sys.stdout.isatty())


def _diff(sources: Sequence[Source], before: Sequence[str], out: TextIO, *, colour: bool) -> None:
    for source, old in zip(sources, before, strict=True):
        lines = difflib.unified_diff(
            old.splitlines(keepends=True),
            to_yaml(source, verbatim=False).splitlines(keepends=True),
            source.name,
            f"{source.name} (mutated)",
        )
        out.writelines(_paint(line) if colour else line for line in lines)


def _paint(line: str) -> str:
    for start, code in (("@@", _CYAN), ("+", _GREEN), ("-", _RED)):
        if line.startswith(start):
            return f"{code}{line.rstrip()}{_END}\n"
    return line
