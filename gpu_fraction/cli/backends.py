"""``gpu-fraction backends``: what each GPU stack supports, and which one a cluster runs."""

import argparse
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import jsonpatch
from ruamel.yaml import YAML

from gpu_fraction.cli import config, detection
from gpu_fraction.cli.config import Commands
from gpu_fraction.cli.detection import as_text
from gpu_fraction.cli.mutate import typed
from gpu_fraction.domain import admission, keys
from gpu_fraction.domain.backends import BACKENDS, Backend, configured
from gpu_fraction.domain.request import Refused
from gpu_fraction.domain.sizes import CardSizes
from gpu_fraction.domain.stack import flag
from gpu_fraction.settings.declaration import group
from gpu_fraction.settings.rewrite import StackSettings

DESCRIPTION: Final = """\
Show the GPU stacks (backends), and which of them a cluster runs.

examples:
  gpu-fraction backends
  gpu-fraction backends show hami --gpu-memory-mib 80Gi
  gpu-fraction backends detect --kubeconfig ~/.kube/config
  kubectl get nodes,crds,mutatingwebhookconfigurations,resourceslices -o json > cluster.json
  gpu-fraction backends detect -f cluster.json
"""

CARD_MIB: Final = 16384
"""The cards of the examples where no setting gives their memory. Chosen: 16 GiB, as in docs."""

STANDARD: Final[tuple[Mapping[str, str], ...]] = (
    {keys.FRACTION: "0.25"},
    {keys.MEMORY: "4Gi"},
    {keys.FRACTION: "0.5", keys.NUM_DEVICES: "2"},
    {keys.FRACTION: "1"},
)
"""The requests that ``show`` renders."""


@dataclass(frozen=True, slots=True)
class ShowSettings:
    """The settings of ``backends show``."""

    stacks: StackSettings = group(StackSettings, "stacks")


def add_parser(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add_parser("backends", description=DESCRIPTION)
    actions = parser.add_subparsers(dest="action", metavar="list|show|detect")
    listed = actions.add_parser("list", help="list what each backend supports")
    shown = actions.add_parser("show", help="show one backend, with pods rendered for it")
    shown.add_argument("name", choices=tuple(BACKENDS), metavar="NAME", help="the backend")
    found = actions.add_parser("detect", help="say which backends a cluster runs")
    detection.declare(found)
    config.declare(shown, ShowSettings)
    for one in (parser, listed, shown, found):
        one.add_argument(
            "-o",
            "--output",
            choices=("text", "json"),
            # What stands before the action would be lost to the default of the action's parser.
            default="text" if one is parser else argparse.SUPPRESS,
            help="output format (default text)",
        )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Run the command; the exit code."""
    as_json = args.output == "json"
    if args.action == "show":
        settings = config.settings(ShowSettings, args, environ)
        return _show(args.name, settings.stacks, as_json=as_json)
    if args.action == "detect":
        return detection.run(args, environ, as_json=as_json)
    if as_json:
        sys.stdout.write(as_text([described(stack) for stack in BACKENDS.values()]))
    else:
        sys.stdout.write("\n".join(map(_listed, BACKENDS.values())))
    return 0


def _listed(stack: type[Backend]) -> str:
    """A backend as lines that a terminal holds."""
    facts = (f"  {title}: {told}\n" for title, told in _facts(stack))
    return f"{stack.name} ({stack.about.title})\n{''.join(facts)}"


def _facts(stack: type[Backend]) -> Iterable[tuple[str, str]]:
    """What it supports, each with its title."""
    about = stack.about
    yield "memory", f"{about.memory}; isolation: {about.memory_isolation}"
    yield "compute", f"{about.compute}; isolation: {about.compute_isolation}"
    yield "several cards", about.cards
    yield "chooses", ", ".join(choices(stack)) or "nothing"


def choices(stack: type[Backend]) -> list[str]:
    """What a user can choose on this stack."""
    honoured = {
        "models": stack.chooses_models,
        "cards": stack.chooses_uuids,
        "placement": stack.chooses_placement,
    }
    return [name for name, yes in honoured.items() if yes]


def described(stack: type[Backend]) -> dict[str, Any]:
    """What is known of a stack, for programs."""
    about = stack.about
    return {
        "name": stack.name,
        "title": about.title,
        "memory": about.memory,
        "compute": about.compute,
        "cards": about.cards,
        "memoryIsolation": about.memory_isolation,
        "computeIsolation": about.compute_isolation,
        "chooses": choices(stack),
        "scheduler": stack.scheduler,
        "resources": list(stack.resources),
        "settings": [
            {"flag": flag(one), "default": one.default, "help": one.help} for one in stack.settings
        ],
        "source": about.source,
        "unverified": list(about.unverified),
    }


def _show(name: str, settings: StackSettings, *, as_json: bool) -> int:
    known = settings.config
    if known.card_sizes == CardSizes():
        known = replace(known, card_sizes=CardSizes(CARD_MIB))
    stack = configured(known)[name]
    examples = [_example(asked, stack) for asked in STANDARD]
    if as_json:
        sys.stdout.write(as_text({**described(type(stack)), "examples": examples}))
        return 0
    for line in _header(stack):
        sys.stdout.write(f"# {line}".rstrip() + "\n")
    yaml = YAML()
    yaml.width = 1 << 16
    for example in examples:
        asked = ", ".join(f'{key}: "{value}"' for key, value in example["annotations"].items())
        sys.stdout.write(f"---\n# {asked}\n")
        for told in (*example.get("refused", ()), *example["warnings"]):
            sys.stdout.write(f"# {told}\n")
        if "pod" in example:
            yaml.dump(example["pod"], sys.stdout)
    return 0


def _header(stack: Backend) -> Iterable[str]:
    about = stack.about
    sizes = stack.config.card_sizes
    yield f"{stack.name}: {about.title}"
    for title, told in (
        *_facts(type(stack)),
        ("scheduler", stack.scheduler or "any"),
        ("resources", ", ".join(f"{name}…" for name in stack.resources) or "none"),
        ("source", about.source),
    ):
        yield f"  {title}: {told}"
    for one in stack.settings:
        yield f"  {flag(one)}: {one.help} (default {one.default or 'none'})"
    for fact in about.unverified:
        yield f"  not verified: {fact}"
    if sizes.by_model_mib:
        yield "  pods below: on GPUs of the configured sizes"
    else:
        yield f"  pods below: on GPUs of {sizes.one_mib} MiB (--gpu-memory-mib)"


def _example(asked: Mapping[str, str], stack: Backend) -> dict[str, Any]:
    """One request as the webhook answers it."""
    pod: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "example", "annotations": dict(asked)},
        "spec": {"containers": [{"name": "main", "image": "example"}]},
    }
    example: dict[str, Any] = {"annotations": dict(asked), "warnings": []}
    try:
        verdict = admission.admit(typed(pod), stack, admission.Rules(left_to=frozenset()))
    except Refused as e:
        return {**example, "refused": [f"refused: {problem}" for problem in e.problems]}
    example["warnings"] = list(verdict.warnings)
    return {**example, "pod": jsonpatch.JsonPatch(verdict.operations).apply(pod)}
