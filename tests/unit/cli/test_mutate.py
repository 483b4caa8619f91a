"""``gpu-fraction mutate``: manifests in, rewritten manifests out, without a cluster."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.conftest import Command, Result
from tests.unit.cli.manifests import NATIVE, NOTEBOOK, manifest

EXAMPLES = Path(__file__).parent.parent.parent.parent / "examples"

REWRITTEN = """\
# A notebook.
apiVersion: v1
kind: Pod
metadata:
  name: notebook
  annotations:
    gpu-fraction: "0.25"   # a quarter
    gpu-fraction.dev/request: '{"v":1,"backend":"native","containers":[{"name":"main","cards":1,\
"coreMilli":250,"memoryMilli":250}],"placement":"binpack","isolation":"preferred"}'
spec:
  containers:
    - name: main   # the only one
      image: 'busybox'
      resources:
        limits:
          gpu-fraction.dev/slot: '1'
          gpu-fraction.dev/core-milli: '250'
          gpu-fraction.dev/memory-mib: '20480'
        requests:
          gpu-fraction.dev/slot: '1'
          gpu-fraction.dev/core-milli: '250'
          gpu-fraction.dev/memory-mib: '20480'
      env:
        - name: GPU_FRACTION
          value: '0.25'
        - name: GPU_MEMORY_LIMIT_MIB
          value: '20480'
  schedulerName: gpu-fraction-scheduler
  tolerations:
    - key: nvidia.com/gpu
      operator: Exists
      effect: NoSchedule
"""

SAID = "container main: 25% of a GPU's memory is 20480 MiB (GPUs have 81920 MiB by configuration)"


def pod_of(document: Any, template: str) -> Any:
    """The pod under ``template``."""
    for key in filter(None, template.split(".")):
        document = document[key]
    return document


# What is printed.


def test_a_pod_keeps_its_comments_quotes_and_order(command: Command, tmp_path: Path) -> None:
    """What is added stands in its author's style; the warning goes to standard error."""
    file = tmp_path / "pod.yaml"
    file.write_text(NOTEBOOK)
    result = command("mutate", "-f", file, "--gpu-memory-mib", "80Gi")
    assert result == Result(0, REWRITTEN, f"Warning: {file}:1 Pod/notebook: {SAID}\n")


def test_standard_input(command: Command) -> None:
    """Named by a dash."""
    result = command("mutate", "-f", "-", "--gpu-memory-mib", "81920", stdin=NOTEBOOK)
    assert result == Result(0, REWRITTEN, f"Warning: -:1 Pod/notebook: {SAID}\n")


def test_mutating_what_was_mutated_changes_nothing(command: Command) -> None:
    """Byte for byte."""
    once = command("mutate", "-f", "-", stdin=NOTEBOOK)
    again = command("mutate", "-f", "-", stdin=once.out)
    assert again == once


def test_as_json(command: Command) -> None:
    """One object for one document, a List for several."""
    one = command("mutate", "-f", "-", "-o", "json", stdin=NOTEBOOK)
    pod = json.loads(one.out)
    assert pod["spec"]["containers"][0]["resources"]["limits"] == NATIVE
    two = command("mutate", "-f", "-", "-o", "json", stdin=f"{NOTEBOOK}---\n{NOTEBOOK}")
    assert json.loads(two.out) == {"apiVersion": "v1", "kind": "List", "items": [pod, pod]}
    again = command("mutate", "-f", "-", "-o", "json", stdin=two.out)
    assert json.loads(again.out) == json.loads(two.out)


def test_as_diff(command: Command, tmp_path: Path) -> None:
    """Only what the webhook adds, nothing of the layout; nothing at all for other files."""
    (tmp_path / "a.yaml").write_text(NOTEBOOK.replace("image: ", "image:    "))
    (tmp_path / "b.yaml").write_text("kind:   ConfigMap\n")
    result = command("mutate", "-f", tmp_path, "-o", "diff", "--gpu-memory-mib", "80Gi")
    assert result.code == 0
    lines = result.out.splitlines()
    assert lines[:2] == [f"--- {tmp_path}/a.yaml", f"+++ {tmp_path}/a.yaml (mutated)"]
    assert not [line for line in lines[2:] if line.startswith("-")]
    added = [line[1:].strip() for line in lines[2:] if line.startswith("+")]
    before = NOTEBOOK.splitlines()
    assert added == [line.strip() for line in REWRITTEN.splitlines() if line not in before]


@pytest.mark.parametrize(
    ("color", "escapes"), [("always", True), ("never", False), ("auto", False)]
)
def test_colours(command: Command, color: str, escapes: bool) -> None:
    """On a terminal, or as asked."""
    result = command("mutate", "-f", "-", "-o", "diff", "--color", color, stdin=NOTEBOOK)
    assert ("\x1b[32m+" in result.out) is escapes


# What is rewritten.


@pytest.mark.parametrize(
    ("kind", "template"),
    [
        ("Pod", ""),
        ("PodTemplate", "template"),
        ("Deployment", "spec.template"),
        ("StatefulSet", "spec.template"),
        ("DaemonSet", "spec.template"),
        ("ReplicaSet", "spec.template"),
        ("ReplicationController", "spec.template"),
        ("Job", "spec.template"),
        ("CronJob", "spec.jobTemplate.spec.template"),
    ],
)
def test_every_workload(command: Command, kind: str, template: str) -> None:
    """The pod is where each kind keeps it; refusals name its path there."""
    text = manifest(kind, template)
    result = command("mutate", "-f", "-", stdin=text)
    assert result.code == 0
    pod = pod_of(result.document(), template)
    assert pod["spec"]["containers"][0]["resources"] == {"limits": NATIVE, "requests": NATIVE}
    assert pod["spec"]["schedulerName"] == "gpu-fraction-scheduler"
    refused = command("mutate", "-f", "-", stdin=text.replace("0.25", "0"))
    dotted = f"{template}." if template else ""
    assert refused.code == 1
    assert refused.out == ""
    assert refused.err.startswith(
        f'-:1 {kind}/w: {dotted}metadata.annotations[gpu-fraction]: "0" is zero; allowed: '
    )


def annotated_itself(kind: str, *templates: str, annotated: tuple[str, ...] = ()) -> str:
    """A workload with the annotation on its own metadata and pods under ``templates``."""
    body: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": kind,
        "metadata": {"name": "w", "annotations": {"gpu-fraction": "0.5"}},
    }
    for template in templates:
        *parents, last = template.split(".")
        parent = body
        for key in parents:
            parent = parent.setdefault(key, {})
        notes = {"annotations": {"gpu-fraction": "0.5"}} if template in annotated else {}
        parent[last] = {"metadata": notes, "spec": {"containers": [{"name": "main"}]}}
    return json.dumps(body)


NO_GPU = "its pods will have no GPU"


@pytest.mark.parametrize(
    ("kind", "templates", "copied"),
    [
        ("Deployment", ["spec.template"], ""),
        ("CronJob", ["spec.jobTemplate.spec.template"], ""),
        (
            "PyTorchJob",
            [f"spec.pytorchReplicaSpecs.{role}.template" for role in ("Master", "Worker")],
            " unless its operator copies it",
        ),
        ("RayCluster", ["spec.headGroupSpec.template"], " unless its operator copies it"),
    ],
)
def test_an_annotation_on_the_workload_itself_is_warned_of(
    command: Command, kind: str, templates: list[str], copied: str
) -> None:
    """Its pods come from the template, so they get no GPU; the rest is printed as it was."""
    text = annotated_itself(kind, *templates)
    result = command("mutate", "-f", "-", stdin=text)
    assert result.code == 0
    assert result.err == (
        f"Warning: -:1 {kind}/w: metadata.annotations[gpu-fraction]: {NO_GPU}{copied}; "
        f"move it to {', '.join(f'{template}.metadata' for template in templates)}\n"
    )
    listed = json.dumps({"kind": "List", "items": [json.loads(text)]})
    again = command("mutate", "-f", "-", "-o", "diff", stdin=listed)
    assert f"{kind}/w: items[0].metadata.annotations[gpu-fraction]: " in again.err
    assert again.out == ""


def test_an_annotation_halfway_to_the_pod_is_warned_of(command: Command) -> None:
    """A CronJob's Jobs give their pods no annotations either."""
    body = json.loads(annotated_itself("CronJob", "spec.jobTemplate.spec.template"))
    body["spec"]["jobTemplate"]["metadata"] = body["metadata"]
    del body["metadata"]
    result = command("mutate", "-f", "-", stdin=json.dumps(body))
    assert " spec.jobTemplate.metadata.annotations[gpu-fraction]: its pods " in result.err


def test_only_templates_below_the_annotation_are_named(command: Command) -> None:
    """Others make their pods without it anyway."""
    body = json.loads(annotated_itself("Job2", "spec.a.template", "spec.b.template"))
    body["spec"]["a"]["metadata"] = body.pop("metadata")
    told = command("mutate", "-f", "-", stdin=json.dumps(body)).err
    assert "; move it to spec.a.template.metadata\n" in told


def test_only_templates_without_the_annotation_are_named(command: Command) -> None:
    """Those that have it get their GPU."""
    both = ("spec.a.template", "spec.b.template")
    one = command("mutate", "-f", "-", stdin=annotated_itself("Job2", *both, annotated=both[:1]))
    assert "; move it to spec.b.template.metadata\n" in one.err
    all_ = command("mutate", "-f", "-", stdin=annotated_itself("Job2", *both, annotated=both))
    assert all_.err == ""


@pytest.mark.parametrize(
    "text",
    [
        annotated_itself("ConfigMap"),
        'kind: Other\n"": {metadata: {annotations: {gpu-fraction: x}}}\n',
        annotated_itself("Node").replace("gpu-fraction", "gpu-fraction.dev/inventory"),
        annotated_itself("Deployment", "spec.template").replace("gpu-fraction", "example.com/x"),
        "\n".join(
            [
                "kind: Other",
                "a0: &a0 {x: y}",
                *(f"a{i + 1}: &a{i + 1} [*a{i}, *a{i}]" for i in range(40)),
                "",
            ]
        ),
    ],
)
def test_what_makes_no_pods_of_ours_is_not_warned_of(command: Command, text: str) -> None:
    """Whatever it carries, and however it is made."""
    result = command("mutate", "-f", "-", "-o", "diff", stdin=text)
    assert result == Result(0, "", "")


@pytest.mark.parametrize("kind", ["List", "PodList", "DeploymentList"])
def test_lists(command: Command, kind: str) -> None:
    """Also of lists; refusals name the item."""
    inner = {"kind": "List", "items": [json.loads(manifest("Job", "spec.template"))]}
    items = [json.loads(manifest("Pod")), {"kind": "ConfigMap"}, None, inner]
    text = json.dumps({"apiVersion": "v1", "kind": kind, "items": items})
    result = command("mutate", "-f", "-", stdin=text)
    found = result.document()["items"]
    assert found[0]["spec"]["schedulerName"] == "gpu-fraction-scheduler"
    assert found[1:3] == [{"kind": "ConfigMap"}, None]
    job = found[3]["items"][0]["spec"]["template"]
    assert job["spec"]["schedulerName"] == "gpu-fraction-scheduler"
    refused = command("mutate", "-f", "-", stdin=text.replace("0.25", "0"))
    assert [line.partition(': "0"')[0] for line in refused.err.splitlines()] == [
        "-:1 Pod/w: items[0].metadata.annotations[gpu-fraction]",
        "-:1 Job/w: items[3].items[0].spec.template.metadata.annotations[gpu-fraction]",
    ]


OTHERS = [
    "kind: ConfigMap\ndata:\n    key:   value  # far away\n",
    "kind: Pod\nmetadata: {name: plain}\nspec:\n        containers:   [ {name: a} ]\n",
    "# nothing but a comment\n",
    "just text\n",
    "- a\n-   b\n",
    "42\n",
    "kind: [Pod]\n",
    "kind: Deployment\nspec: {}\n",
    "kind: Deployment\nspec: {template: null}\n",
    "kind: Custom\nmetadata: {annotations: {gpu-fraction: nonsense}}\n",
    "kind: List\nitems: null\n",
    "a: |\n   block\n     text\nb: >-\n  folded\n   text\n",
    "%YAML 1.1\n---\na: yes\n",
    "---\n---\n",
    "",
    "a: 1\n...\n",
    'kind: ConfigMap\ndata: {a: "long ' + "word " * 60 + '"}\n',
]


@pytest.mark.parametrize("text", OTHERS)
def test_everything_else_comes_out_as_it_went_in(command: Command, text: str) -> None:
    """Byte for byte: layout, comments, markers."""
    assert command("mutate", "-f", "-", stdin=text) == Result(0, text, "")


def test_other_documents_of_a_file_come_out_as_they_went_in(command: Command) -> None:
    """Only the document with the GPU pod is written again."""
    other = "kind:   ConfigMap   # wide\ndata: { a:  1 }\n"
    text = f"# head\n---\n{other}---\n# only a comment\n---\n{NOTEBOOK}---\n{other}"
    expected = text.replace(NOTEBOOK, REWRITTEN)
    result = command("mutate", "-f", "-", "--gpu-memory-mib", "80Gi", stdin=text)
    assert (result.code, result.out) == (0, expected)
    assert result.err == f"Warning: -:3 Pod/notebook: {SAID}\n"


def test_several_files_and_folders(command: Command, tmp_path: Path) -> None:
    """In the order given, a folder's by name; other files in it are not read."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "b.yml").write_text("b: 1\n")
    (folder / "a.json").write_text('{"a": 1}')
    (folder / "c.txt").write_text("{")
    (folder / "sub.yaml").mkdir()
    (tmp_path / "last.yaml").write_text("last: 1\n")
    last = tmp_path / "last.yaml"
    result = command("mutate", "-f", folder, "-f", "-", "-f", last, stdin="x: 1")
    assert result.documents() == [{"a": 1}, {"b": 1}, {"x": 1}, {"last": 1}]
    assert command("mutate", "-f", "-", "-f", last, "-f", "-").out == "last: 1\n"


def test_json_goes_in_too(command: Command, tmp_path: Path) -> None:
    """With tabs, and with what is written in escapes."""
    text = json.dumps(json.loads(manifest("Pod", label="\U0001f600 \u00fc")), indent="\t")
    (tmp_path / "pod.json").write_text(text)
    found = command("mutate", "-f", tmp_path / "pod.json").document()
    assert found["metadata"]["label"] == "\U0001f600 \u00fc"
    assert found["spec"]["schedulerName"] == "gpu-fraction-scheduler"


@pytest.mark.parametrize("name", sorted(p.name for p in EXAMPLES.glob("*.yaml")))
@pytest.mark.parametrize("backend", ["native", "hami"])
def test_the_examples(command: Command, name: str, backend: str) -> None:
    """Every one passes, and passes again; only lines are added."""
    text = (EXAMPLES / name).read_text()
    once = command("mutate", "-f", "-", "--backend", backend, stdin=text)
    assert once.code == 0
    assert f'"backend":"{backend}"' in once.out
    added = iter(once.out.splitlines())
    assert all(line in added for line in text.splitlines()), "a line was lost or moved"
    assert command("mutate", "-f", "-", "--backend", backend, stdin=once.out).out == once.out
