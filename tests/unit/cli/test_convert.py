"""``gpu-fraction convert``: manifests of one GPU stack, for another."""

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from gpu_fraction.cli.convert import ANNOTATION, convert
from gpu_fraction.cli.mutate import typed
from gpu_fraction.domain import conversion, keys
from gpu_fraction.domain.backends import BACKENDS, configured, demand
from gpu_fraction.domain.backends.hami import Hami
from gpu_fraction.domain.request import Refused, Request, Slice
from tests.builders.pods import Raw, container, pod
from tests.support.reviews import rewriting
from tests.unit.cli.conftest import Command
from tests.unit.cli.manifests import NOTEBOOK, manifest

PAGES = Path(__file__).parents[3] / "docs" / "backends"

HAMI = """\
# Trains.
apiVersion: batch/v1
kind: Job
metadata: {name: train}
spec:
  template:
    metadata:
      labels: {app: train}
    spec:
      schedulerName: hami-scheduler
      containers:
        - name: main   # the only one
          image: 'busybox'
          resources:
            limits:
              cpu: 1   # enough
              nvidia.com/gpu: 1
              nvidia.com/gpumem: 4096
              nvidia.com/gpucores: 30
"""

ANNOTATED = """\
# Trains.
apiVersion: batch/v1
kind: Job
metadata: {name: train}
spec:
  template:
    metadata:
      labels: {app: train}
      annotations:
        gpu-memory: 4Gi
        gpu-cores: '0.3'
    spec:
      containers:
        - name: main   # the only one
          image: 'busybox'
          resources:
            limits:
              cpu: 1   # enough
"""


def by_hand(stack: str, *containers: Raw, **rest: Any) -> str:
    """A pod as JSON; its scheduler is the stack's."""
    scheduler = BACKENDS[stack].scheduler
    spec = {"schedulerName": scheduler} if scheduler else {}
    return json.dumps(pod(rest.pop("annotations", None), *containers, **spec, **rest))


def hami(**amounts: int) -> Raw:
    """A container with HAMi's resources."""
    return container(
        "main", {f"nvidia.com/{name}": str(amount) for name, amount in amounts.items()}
    )


# To annotations.


def test_a_stacks_pod_becomes_annotations(command: Command, tmp_path: Path) -> None:
    """Comments and everything else stay."""
    file = tmp_path / "job.yaml"
    file.write_text(HAMI)
    result = command("convert", "-f", file, "--to", "annotation")
    assert (result.code, result.err, result.out) == (0, "", ANNOTATED)


def test_and_back(command: Command) -> None:
    """Nothing of gpu-fraction remains."""
    result = command("convert", "-f", "-", "--to", "hami", stdin=ANNOTATED)
    assert (result.code, result.err) == (0, "")
    template = result.document()["spec"]["template"]
    assert not any(keys.is_ours(key) for key in template["metadata"].get("annotations", {}))
    assert template["spec"]["schedulerName"] == "hami-scheduler"
    (main,) = template["spec"]["containers"]
    assert "env" not in main
    assert main["resources"]["limits"] == {
        "cpu": 1,
        "nvidia.com/gpu": "1",
        "nvidia.com/gpumem": "4096",
        "nvidia.com/gpucores": "30",
    }


@pytest.mark.parametrize(
    ("stack", "made", "annotations"),
    [
        ("nvidia", container("main", {"nvidia.com/gpu": "2"}), {"gpu-fraction": "2"}),
        (
            "native",
            container(
                "main", {"gpu-fraction.dev/slot": "1", "gpu-fraction.dev/core-milli": "250"}
            ),
            {"gpu-fraction": "0.25"},
        ),
        (
            "hami",
            hami(**{"gpu": 2, "gpumem-percentage": 50, "gpucores": 50}),
            {"gpu-fraction": "0.5", "gpu-fraction-num-devices": "2"},
        ),
        ("hami", hami(**{"gpu": 1, "gpumem-percentage": 50}), {"gpu-fraction": "0.5"}),
    ],
)
def test_what_each_amount_becomes(
    command: Command, stack: str, made: Raw, annotations: dict[str, str]
) -> None:
    """In the shortest form, without anything of the stack."""
    result = command("convert", "-f", "-", "--to", "annotation", stdin=by_hand(stack, made))
    assert (result.code, result.err) == (0, "")
    document = result.document()
    assert document["metadata"]["annotations"] == annotations
    assert document["spec"] == {"containers": [{"name": "main", "image": "busybox"}]}


def test_the_choices_of_a_stack(command: Command) -> None:
    """Models, cards, placement and no limits."""
    given = {
        "nvidia.com/nouse-gputype": "T4",
        "nvidia.com/use-gpuuuid": "GPU-1,GPU-2",
        "hami.io/gpu-scheduler-policy": "topology-aware",
        "example.com/other": "stays",
    }
    made = {**hami(gpu=1), "env": [{"name": "CUDA_DISABLE_CONTROL", "value": "true"}]}
    text = by_hand("hami", made, annotations=given)
    result = command("convert", "-f", "-", "--to", "annotation", stdin=text)
    assert (result.code, result.err) == (0, "")
    assert result.document()["metadata"]["annotations"] == {
        "example.com/other": "stays",
        "gpu-fraction": "1",
        "gpu-fraction.dev/gpu-model": "!T4",
        "gpu-fraction.dev/gpu-uuid": "GPU-1,GPU-2",
        "gpu-fraction.dev/placement": "topology",
        "gpu-fraction.dev/isolation": "none",
    }


def test_what_the_webhook_wrote_is_taken_back(command: Command) -> None:
    """The user's annotations are as before, whatever the sizes of the cards were then."""
    made = command(
        "mutate", "-f", "-", "--backend", "hami", "--gpu-memory-mib", "80Gi", stdin=NOTEBOOK
    )
    result = command("convert", "-f", "-", "--to", "annotation", stdin=made.out)
    assert (result.code, result.err) == (0, "")
    assert result.document() == YAML(typ="safe").load(NOTEBOOK)


def test_a_kai_pod_keeps_its_annotations(command: Command) -> None:
    """They are ours too; only the scheduler is KAI's."""
    text = by_hand("kai", annotations={"gpu-fraction": "0.5"})
    result = command("convert", "-f", "-", "--to", "annotation", stdin=text)
    assert result.document()["metadata"]["annotations"] == {"gpu-fraction": "0.5"}
    assert "schedulerName" not in result.document()["spec"]


# What is lost.


@pytest.mark.parametrize(
    ("text", "to", "lost"),
    [
        (
            by_hand("hami", hami(gpu=1, gpumem=4096, priority=1)),
            "annotation",
            "spec.containers[0].resources[nvidia.com/priority]: 1 is dropped",
        ),
        (
            by_hand("hami", hami(gpu=1), annotations={"nvidia.com/nouse-gpuuuid": "GPU-1"}),
            "annotation",
            "metadata.annotations[nvidia.com/nouse-gpuuuid]: only HAMi reads it; it stays",
        ),
        (
            by_hand("hami", hami(gpu=1), annotations={"nvidia.com/use-gputype": "A100"}),
            "nvidia",
            "metadata.annotations[gpu-fraction.dev/gpu-model]: cannot be honoured: NVIDIA device",
        ),
        (
            by_hand("hami", hami(gpu=1, gpumem=4096, gpucores=30)),
            "kai",
            "metadata.annotations[gpu-cores]: cannot be honoured: KAI-Scheduler gives memory only",
        ),
        (
            manifest("Pod").replace("0.25", "0.125"),
            "hami",
            "container main: 0.125 of the compute becomes container main: 0.13 of the compute",
        ),
    ],
)
def test_what_is_lost_is_named(command: Command, text: str, to: str, lost: str) -> None:
    """On standard error; strictly, there is no manifest."""
    words = ("convert", "-f", "-", "--to", to)
    result = command(*words, stdin=text)
    assert result.code == 0
    assert f": {lost}" in result.err
    assert result.out
    strict = command(*words, "--strict", stdin=text)
    assert (strict.code, strict.out, strict.err) == (1, "", result.err)


def test_what_is_not_verified_counts_as_lost() -> None:
    """Nobody can promise that it means the same."""

    class Doubtful(Hami):
        about = replace(Hami.about, unverified=("its unit",))

    step = conversion.rendered(
        typed(pod()), Request((Slice("main", 1, 500, None, 500),)), Doubtful()
    )
    assert list(map(str, step.lost)) == ["backend hami: not verified: its unit"]
    assert not any("its unit" in note for note in step.notes)


@pytest.mark.parametrize("recorded", [False, True])
def test_an_annotation_that_is_no_part_of_the_request(command: Command, recorded: bool) -> None:
    """It is lost in another stack's form."""
    text = NOTEBOOK.replace(
        "gpu-fraction:", 'gpu-fraction.dev/framework-env: "off"\n    gpu-fraction:'
    )
    if recorded:
        text = command("mutate", "-f", "-", "--backend", "hami", stdin=text).out
    result = command("convert", "-f", "-", "--to", "hami", stdin=text)
    assert "Lost: -:1 Pod/notebook: metadata.annotations[gpu-fraction.dev/framework-env]: off" in (
        result.err
    )
    kept = command("convert", "-f", "-", "--to", "annotation", stdin=text)
    assert (kept.err, kept.document()["metadata"]["annotations"]) == (
        "",
        {"gpu-fraction": "0.25", "gpu-fraction.dev/framework-env": "off"},
    )


def test_variables_of_frameworks_go_with_the_form(command: Command) -> None:
    """The webhook writes them again."""
    size = ("--gpu-memory-mib", "16Gi")
    made = command("mutate", "-f", "-", "--backend", "gpushare", *size, stdin=NOTEBOOK)
    assert "XLA_PYTHON_CLIENT_MEM_FRACTION" in made.out
    result = command("convert", "-f", "-", "--to", "annotation", *size, stdin=made.out)
    assert result.document() == YAML(typ="safe").load(NOTEBOOK)


def test_nothing_is_lost_strictly(command: Command) -> None:
    """The manifests are printed."""
    assert command("convert", "-f", "-", "--to", "annotation", "--strict", stdin=HAMI).code == 0


# What cannot be converted.


@pytest.mark.parametrize(
    ("text", "to", "told"),
    [
        (HAMI, "nvidia", "spec.template.metadata.annotations[gpu-fraction]: container main asks"),
        (
            by_hand(
                "hami",
                hami(gpu=1, gpumem=1),
                {**hami(gpu=1, gpumem=2), "name": "side"},
            ),
            "annotation",
            "metadata.annotations[gpu-fraction.dev/container.side]: cannot say what",
        ),
        (
            by_hand(
                "hami",
                hami(gpu=1, gpumem=1),
                container(
                    "side", {"gpu-fraction.dev/slot": "1", "gpu-fraction.dev/core-milli": "9"}
                ),
            ),
            "annotation",
            "spec: asks several stacks (native, hami); name one of them with --from",
        ),
        (
            by_hand("nvidia", hami(gpu=1), annotations={"gpu-fraction": "1"}),
            "annotation",
            "metadata.annotations: has GPU annotations beside resources of nvidia",
        ),
        (manifest("Pod").replace("0.25", "1.5"), "hami", "metadata.annotations[gpu-fraction]:"),
        ('{"kind": "Pod", "metadata": {"annotations": {"a": 1}}}', "hami", "is not a string"),
    ],
)
def test_a_pod_that_cannot_be_converted(command: Command, text: str, to: str, told: str) -> None:
    """As mutate refuses: one line each, no manifest, exit code 1."""
    result = command("convert", "-f", "-", "--to", to, stdin=text)
    assert (result.code, result.out) == (1, "")
    assert told in result.err


@pytest.mark.parametrize("metadata", [{}, {"metadata": None}])
@pytest.mark.parametrize("output", ["yaml", "json"])
def test_a_template_without_metadata(command: Command, metadata: Raw, output: str) -> None:
    """Few Jobs and CronJobs have any in their template; it stands before the spec."""
    spec = {"containers": [hami(gpu=1, gpumem=4096)]}
    job = {"kind": "Job", "spec": {"template": {**metadata, "spec": spec}}}
    result = command(
        "convert", "-f", "-", "--to", "annotation", "-o", output, stdin=json.dumps(job)
    )
    assert (result.code, result.err) == (0, "")
    template = result.document()["spec"]["template"]
    assert template["metadata"] == {"annotations": {"gpu-memory": "4Gi"}}
    assert list(template) == ["metadata", "spec"]


def test_templates_that_share_a_pod_without_metadata(command: Command) -> None:
    """Each gets its own."""
    text = (
        "kind: List\nitems:\n- kind: Job\n  spec: {template: &t {spec: {containers: [{name: m, "
        "resources: {limits: {aliyun.com/gpu-mem: 4}}}]}}}\n- kind: Job\n  spec: {template: *t}\n"
    )
    result = command("convert", "-f", "-", "--to", "annotation", stdin=text)
    first, second = (item["spec"]["template"] for item in result.document()["items"])
    assert first == second
    assert first["metadata"]["annotations"] == {"gpu-memory": "4Gi"}


def test_two_stacks_that_ask_the_same(command: Command) -> None:
    """One would be left beside the annotations, and the webhook refuses such a pod."""
    both = {"nvidia.com/gpu": "1", "nvidia.com/gpumem": "4096", "aliyun.com/gpu-mem": "4"}
    result = command(
        "convert",
        "-f",
        "-",
        "--to",
        "annotation",
        stdin=json.dumps(pod(None, container("m", both))),
    )
    assert (result.code, result.out) == (1, "")
    assert "asks several stacks (cgpu, hami); name one of them with --from" in result.err


def test_a_stack_can_be_named(command: Command) -> None:
    """What the other stack has stays, with a warning."""
    other = {"gpu-fraction.dev/slot": "1", "gpu-fraction.dev/core-milli": "9"}
    text = by_hand("hami", hami(gpu=1, gpumem=1024), container("side", other))
    words = ("convert", "-f", "-", "--to", "annotation", "--from", "hami")
    result = command(*words, stdin=text)
    assert "Warning: -:1 Pod/p: still asks native; remove it, or" in result.err
    document = result.document()
    assert document["metadata"]["annotations"]["gpu-memory"] == "1Gi"
    assert document["spec"]["containers"][1]["resources"]["limits"] == other


def test_a_stack_that_the_pod_is_not_for(command: Command) -> None:
    """It is left as it is, and the user told."""
    words = ("convert", "-f", "-", "--to", "annotation", "--from", "kai")
    result = command(*words, stdin=HAMI)
    assert (result.code, result.out) == (0, HAMI)
    assert "Job/train: asks hami, not kai; left as it is" in result.err
    plain = HAMI.replace("nvidia.com/", "example.com/")
    assert command(*words, stdin=plain).err == ""


def test_files_that_cannot_be_read(command: Command, tmp_path: Path) -> None:
    """Exit code 2, as of mutate."""
    result = command("convert", "-f", tmp_path / "no.yaml", "--to", "hami")
    assert (result.code, result.out) == (2, "")


# What is left as it is.


@pytest.mark.parametrize("to", [ANNOTATION, *BACKENDS])
def test_other_objects_are_printed_unchanged(command: Command, to: str) -> None:
    """Byte for byte, and pods without a GPU too."""
    text = "# c\nkind:   ConfigMap\n---\nkind: Pod\nspec: {containers: [{name:  a}]}\n"
    result = command("convert", "-f", "-", "--to", to, stdin=text)
    assert (result.code, result.err, result.out) == (0, "", text)


def test_a_pod_of_that_form_already(command: Command) -> None:
    """Is not written again."""
    assert command("convert", "-f", "-", "--to", "hami", stdin=HAMI).out == HAMI
    assert command("convert", "-f", "-", "--to", "annotation", stdin=ANNOTATED).out == ANNOTATED


def test_annotations_on_the_workload_itself_are_warned_of(command: Command) -> None:
    """As by mutate: they would be no pod's."""
    text = HAMI.replace("metadata: {name: train}", "metadata: {annotations: {gpu-memory: 4Gi}}")
    result = command("convert", "-f", "-", "--to", "kai", stdin=text)
    assert "metadata.annotations[gpu-memory]: its pods will have no GPU" not in result.err
    text = text.replace("nvidia.com/", "example.com/")
    result = command("convert", "-f", "-", "--to", "kai", stdin=text)
    assert "metadata.annotations[gpu-memory]: its pods will have no GPU" in result.err


def test_as_json(command: Command) -> None:
    """One object for one document."""
    result = command("convert", "-f", "-", "--to", "annotation", "-o", "json", stdin=HAMI)
    assert json.loads(result.out) == YAML(typ="safe").load(ANNOTATED)


def test_to_native_is_what_the_webhook_writes(command: Command) -> None:
    """Annotations and resources: a pod that /validate takes."""
    result = command("convert", "-f", "-", "--to", "native", stdin=NOTEBOOK)
    assert result.document() == command("mutate", "-f", "-", stdin=NOTEBOOK).document()


# Pods by hand of every backend: the examples of docs/backends/NAME.yaml.


def _by_hand() -> list[Any]:
    pages = {file.stem: YAML(typ="safe").load(file) for file in sorted(PAGES.glob("*.yaml"))}
    return [
        pytest.param(name, example, id=f"{name}-{index}")
        for name, page in pages.items()
        for index, example in enumerate(page["by_hand"])
    ]


@pytest.mark.parametrize(("backend", "example"), _by_hand())
def test_a_pod_by_hand_there_and_back(backend: str, example: Any) -> None:
    """It costs the same afterwards, where nothing is lost."""
    amounts = {name: str(amount) for name, amount in example["resources"].items()}
    env = {"env": example["env"]} if "env" in example else {}
    raw = pod(
        example.get("annotations"), container("main", amounts, **env), **example.get("given", {})
    )
    raw["metadata"]["labels"] = example.get("labels", {})
    settings = rewriting(**{"backend": backend, **example.get("settings", {})})
    stacks = configured(settings.stacks.costs.config)
    before = copy.deepcopy(raw)
    try:
        there = convert(raw, ANNOTATION, stacks)
        back = convert(there.pod, backend, stacks)
    except Refused:
        return  # not to be said in annotations; how that is told has tests of its own
    assert raw == before
    assert there.source is not None
    if not (there.lost or back.lost):
        assert demand(typed(back.pod), stacks) == demand(typed(raw), stacks)
