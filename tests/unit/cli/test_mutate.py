"""``gpu-fraction mutate``: manifests in, rewritten manifests out, without a cluster."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.conftest import Command, Result

EXAMPLES = Path(__file__).parent.parent.parent.parent / "examples"

NOTEBOOK = """\
# A notebook.
apiVersion: v1
kind: Pod
metadata:
  name: notebook
  annotations:
    gpu-fraction: "0.25"   # a quarter
spec:
  containers:
    - name: main   # the only one
      image: 'busybox'
"""

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
NATIVE = {"gpu-fraction.dev/slot": "1", "gpu-fraction.dev/core-milli": "250"}


def manifest(kind: str, template: str = "", **metadata: str) -> str:
    """A workload of one GPU container, its pod under ``template``."""
    pod: dict[str, Any] = {
        "metadata": {"annotations": {"gpu-fraction": "0.25"}},
        "spec": {"containers": [{"name": "main"}]},
    }
    body: dict[str, Any] = {"apiVersion": "v1", "kind": kind}
    body["metadata"] = {"name": "w", **metadata}
    if not template:
        body["metadata"].update(pod["metadata"])
        return json.dumps({**body, "spec": pod["spec"]})
    for key in reversed(template.split(".")):
        pod = {key: pod}
    return json.dumps({**body, **pod})


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


# Aliases.

ALIASED = """\
apiVersion: v1
kind: Pod
metadata:
  name: p
  annotations:
    gpu-fraction: "0.25"
spec:
  containers:
  - name: main
    resources: &small
      limits: &limits {cpu: 1}
  - name: side
    resources: *small
  - name: other
    resources:
      limits: *limits
"""

MERGED = """\
common: &common
  image: busybox
  resources:
    limits: {cpu: 1}
  env:
  - {name: A, value: b}
apiVersion: v1
kind: Pod
metadata:
  name: p
  annotations:
    gpu-fraction: "0.25"
    gpu-fraction-container-name: side
spec:
  containers:
  - <<: *common
    name: main
  - <<: *common
    name: side
"""


@pytest.mark.parametrize("output", ["yaml", "json"])
def test_an_alias_does_not_give_others_the_gpu(command: Command, output: str) -> None:
    """Containers that share their resources by alias share no GPU."""
    result = command("mutate", "-f", "-", "-o", output, stdin=ALIASED)
    main, side, other = result.document()["spec"]["containers"]
    assert main["resources"] == {"limits": {"cpu": 1, **NATIVE}, "requests": NATIVE}
    assert side == {"name": "side", "resources": {"limits": {"cpu": 1}}}
    assert other == {"name": "other", "resources": {"limits": {"cpu": 1}}}


@pytest.mark.parametrize("output", ["yaml", "json"])
def test_a_merge_does_not_give_others_the_gpu(command: Command, output: str) -> None:
    """Nor do those that merge the same mapping."""
    result = command("mutate", "-f", "-", "-o", output, stdin=MERGED)
    common = {
        "image": "busybox",
        "resources": {"limits": {"cpu": 1}},
        "env": [{"name": "A", "value": "b"}],
    }
    document = result.document()
    assert document["common"] == common
    main, side = document["spec"]["containers"]
    assert main == {**common, "name": "main"}
    assert side["resources"] == {"limits": {"cpu": 1, **NATIVE}, "requests": NATIVE}
    assert side["env"] == [*common["env"], {"name": "GPU_FRACTION", "value": "0.25"}]


def test_templates_that_share_a_pod_by_alias_are_each_rewritten_once(command: Command) -> None:
    """The second finds its pod as the first found it."""
    text = """\
kind: List
items:
- kind: Deployment
  metadata: {name: a}
  spec:
    template: &pod
      metadata: {annotations: {gpu-fraction: "0.25"}}
      spec: {containers: [{name: main}]}
- kind: Deployment
  metadata: {name: b}
  spec:
    template: *pod
"""
    result = command("mutate", "-f", "-", stdin=text)
    assert result.code == 0
    a, b = (item["spec"]["template"] for item in result.document()["items"])
    assert a == b
    assert a["spec"]["containers"][0]["resources"] == {"limits": NATIVE, "requests": NATIVE}
    assert a["spec"]["containers"][0]["env"] == [{"name": "GPU_FRACTION", "value": "0.25"}]


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [*a]\n",
        "kind: List\nitems: &a [*a]\n",
        "kind: Pod\nmetadata: {annotations: {gpu-fraction: '1'}}\nspec: &s {containers: [*s]}\n",
        "kind: Pod\nspec: &s\n  containers: *s\nmetadata: {annotations: {gpu-fraction: '1'}}\n",
    ],
)
def test_a_document_that_holds_itself_is_no_crash(command: Command, text: str) -> None:
    """It passes through or is refused."""
    result = command("mutate", "-f", "-", stdin=text)
    assert result.code in {0, 1, 2}
    assert "Traceback" not in result.err


# Types.


@pytest.mark.parametrize(
    ("value", "shown"), [("0.25", "0.25"), ("1", "1"), ("true", "true"), ("null", "None")]
)
def test_an_annotation_without_quotes(command: Command, value: str, shown: str) -> None:
    """The API server would refuse it; the message says what to do."""
    text = NOTEBOOK.replace('"0.25"', value)
    result = command("mutate", "-f", "-", stdin=text)
    assert result == Result(
        1,
        "",
        f'-:1 Pod/notebook: metadata.annotations[gpu-fraction]: "{shown}" must be text; put it '
        "in quotes\n",
    )


def test_amounts_as_numbers(command: Command) -> None:
    """People write them so, and the API server takes them."""
    text = NOTEBOOK + "      resources: {limits: {cpu: 0.5, memory: 1e9, ephemeral-storage: 5}}\n"
    result = command("mutate", "-f", "-", stdin=text)
    assert result.code == 0
    assert "cpu: 0.5, memory: 1e9, ephemeral-storage: 5" in result.out
    gpu = NOTEBOOK + "      resources: {limits: {nvidia.com/gpu: 1}}\n"
    refused = command("mutate", "-f", "-", stdin=gpu)
    assert refused.code == 1
    assert "spec.containers[0].resources[nvidia.com/gpu]: asks for a GPU beside" in refused.err


def test_file_modes_keep_their_meaning_as_json(command: Command) -> None:
    """Kubernetes reads YAML 1.1, where a leading zero means octal; JSON has decimals only."""
    text = NOTEBOOK + "  volumes: [{name: s, secret: {secretName: s, defaultMode: 0400}}]\n"
    as_json = command("mutate", "-f", "-", "-o", "json", stdin=text)
    assert json.loads(as_json.out)["spec"]["volumes"][0]["secret"]["defaultMode"] == 0o400
    assert "defaultMode: 0400" in command("mutate", "-f", "-", stdin=text).out


@pytest.mark.parametrize(
    ("change", "path"),
    [
        (("containers:", "containers: x\nignored:"), "pod"),
        (("- name: main", "- name: 7"), "pod"),
        (("    - name: main", "    - null\n    - name: main"), "pod"),
        (("'busybox'", "'busybox'\n      env: [{name: A, value: 1}]"), "pod"),
        (("'busybox'", "'busybox'\n      resources: 7"), "pod"),
        (("'busybox'", "'busybox'\n      resources: {limits: [cpu]}"), "pod"),
    ],
)
def test_what_the_api_server_would_not_take(
    command: Command, change: tuple[str, str], path: str
) -> None:
    """Is refused here too, never a crash."""
    result = command("mutate", "-f", "-", stdin=NOTEBOOK.replace(*change))
    assert result.code == 1
    assert result.out == ""
    assert result.err.startswith(f"-:1 Pod/notebook: {path}: not a Pod: ")


# Refusals and errors.


def test_one_line_for_every_refusal_and_nothing_printed(command: Command, tmp_path: Path) -> None:
    """Of every pod of every file, each with its place."""
    (tmp_path / "a.yaml").write_text(NOTEBOOK + "---\n" + NOTEBOOK.replace("0.25", "9.5"))
    (tmp_path / "b.yaml").write_text(
        NOTEBOOK.replace("name: notebook", "generateName: gen-")
        .replace("gpu-fraction:", "gpu-fractions:")
        .replace("spec:\n", "spec:\n  nodeName: n\n")
    )
    result = command("mutate", "-f", tmp_path)
    assert (result.code, result.out) == (1, "")
    refusals = [line for line in result.err.splitlines() if not line.startswith("Warning: ")]
    assert [re.sub(r": (?=[\"n]).*", "", line) for line in refusals] == [
        f"{tmp_path}/a.yaml:2 Pod/notebook: metadata.annotations[gpu-fraction]",
        f"{tmp_path}/b.yaml:1 Pod/gen-: metadata.annotations[gpu-fractions]",
        f"{tmp_path}/b.yaml:1 Pod/gen-: spec.nodeName",
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: [", "-:1: not YAML: "),
        ("a: 1\nb: 2\na: 3\n", "-:3: not YAML: "),
        ("a: *nowhere\n", "-:1: not YAML: "),
        ("a: \x00\n", "-: not YAML: "),
        ("a: 1\n  b: 2\n", "-:2: not YAML: "),
        ("a: " + "[" * 600, "-"),
        ("a: !!timestamp 99\n", "-"),
        ("a: 2024-99-99\n", "-"),
    ],
)
def test_what_is_no_yaml(command: Command, text: str, told: str) -> None:
    """With the file and the line, exit code 2."""
    result = command("mutate", "-f", "-", stdin=text)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(told)
    assert "Traceback" not in result.err


def test_files_that_cannot_be_read(command: Command, tmp_path: Path) -> None:
    """Missing, not text, an empty folder: said in a line, exit code 2."""
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    empty = tmp_path / "empty"
    empty.mkdir()
    for name, told in (
        (tmp_path / "none.yaml", "No such file"),
        (tmp_path / "bytes.yaml", "codec can't decode"),
        (empty, "holds no .yaml, .yml, .json file"),
    ):
        result = command("mutate", "-f", name)
        assert (result.code, result.out) == (2, "")
        assert result.err.startswith(f"{name}: ")
        assert told in result.err


# Settings.


def test_a_namespace_among_the_manifests_chooses_its_backend(command: Command) -> None:
    """Where the settings allow it, as its label would in the cluster."""
    text = (
        "kind: Namespace\nmetadata: {name: team-h, labels: {gpu-fraction.dev/backend: hami}}\n"
        f"---\n{manifest('Pod', namespace='team-h')}\n---\n{manifest('Pod')}\n"
    )
    allowed = command("mutate", "-f", "-", "--namespace-backends", "hami,nvidia", stdin=text)
    _, chosen, default = allowed.documents()
    assert chosen["spec"]["schedulerName"] == "hami-scheduler"
    assert default["spec"]["schedulerName"] == "gpu-fraction-scheduler"
    _, chosen, _ = command("mutate", "-f", "-", stdin=text).documents()
    assert chosen["spec"]["schedulerName"] == "gpu-fraction-scheduler"


@pytest.mark.parametrize("metadata", ["x", "[]", "{name: n, labels: x}", "{name: n, labels: [x]}"])
def test_an_odd_namespace_is_no_crash(command: Command, metadata: str) -> None:
    """It chooses nothing."""
    result = command("mutate", "-f", "-", stdin=f"kind: Namespace\nmetadata: {metadata}\n")
    assert result.code == 0


def test_flags_environment_and_file(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flag beats the environment, which beats the file."""
    config = tmp_path / "config.yaml"
    config.write_text("gpu_memory_mib: 4096\nbackend: nvidia\n")

    def memory(*arguments: object) -> str:
        text = NOTEBOOK
        found = command(
            "mutate", "-f", "-", "--config", config, "--backend", "native", *arguments, stdin=text
        )
        limits = found.document()["spec"]["containers"][0]["resources"]["limits"]
        return str(limits["gpu-fraction.dev/memory-mib"])

    assert memory() == "1024"
    monkeypatch.setenv("GPU_FRACTION_GPU_MEMORY_MIB", "8192")
    assert memory() == "2048"
    assert memory("--gpu-memory-mib", "16384") == "4096"


def test_settings_that_contradict_each_other(command: Command) -> None:
    """Both are named, before any pod is looked at."""
    flags = ("--backend", "hami", "--left-to-schedulers", "hami-scheduler")
    result = command("mutate", "-f", "-", *flags, stdin=NOTEBOOK)
    assert (result.code, result.out) == (2, "")
    assert result.err == (
        "gpu-fraction: left_to_schedulers (flag --left-to-schedulers) names hami-scheduler, which "
        "places the pods of backend hami (flag --backend); leave one of the two out\n"
    )


def test_settings_that_cannot_be_used(command: Command, tmp_path: Path) -> None:
    """All at once, each with its source, exit code 2."""
    config = tmp_path / "config.yaml"
    config.write_text("bakend: hami\nmax_cards: none\n")
    result = command("mutate", "-f", "-", "--config", config, "--backend", "kai", stdin=NOTEBOOK)
    assert (result.code, result.out) == (2, "")
    assert result.err.splitlines() == [
        'gpu-fraction: file: unknown setting "bakend"; did you mean "backend"?',
        'gpu-fraction: flag --backend: "kai" is refused; allowed: native, hami, nvidia',
        'gpu-fraction: file max_cards: "none" is refused; allowed: a whole number from 1 to 1024',
    ]
    missing = command("mutate", "-f", "-", "--config", tmp_path / "none.yaml", stdin=NOTEBOOK)
    assert missing.code == 2
    assert missing.err.startswith(f"gpu-fraction: --config {tmp_path}/none.yaml: ")


@pytest.mark.parametrize(
    "arguments",
    [(), ("mutate",), ("mutate", "-f", "-", "-o", "xml"), ("nonsense",), ("mutate", "--x")],
)
def test_a_command_that_cannot_run(command: Command, arguments: tuple[str, ...]) -> None:
    """Says how it is used, exit code 2."""
    result = command(*arguments)
    assert (result.code, result.out) == (2, "")
    assert "usage: gpu-fraction" in result.err
