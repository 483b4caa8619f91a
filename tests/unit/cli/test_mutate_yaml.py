"""``gpu-fraction mutate`` on YAML: aliases, merges, and scalars of other types."""

import json

import pytest
from ruamel.yaml import YAML

from tests.unit.cli.conftest import Command, Result
from tests.unit.cli.manifests import NATIVE, NOTEBOOK

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
    ("value", "shown"),
    [
        ("0.25", "0.25"),
        ("1", "1"),
        ("true", "true"),
        ("null", "null"),
        ("off", "off"),  # a boolean in YAML 1.1, which kubectl reads
        ("Yes", "Yes"),
    ],
)
def test_an_annotation_without_quotes(command: Command, value: str, shown: str) -> None:
    """The API server would refuse it; the message says what to do."""
    text = NOTEBOOK.replace('"0.25"', value)
    result = command("mutate", "-f", "-", stdin=text)
    assert result == Result(
        1,
        "",
        f'-:1 Pod/notebook: metadata.annotations[gpu-fraction]: "{shown}" is not a string; put '
        "it in quotes\n",
    )


def test_words_of_json_stay_words(command: Command) -> None:
    """Without quotes kubectl, which reads YAML 1.1, would take them for booleans."""
    pod = YAML(typ="safe").load(NOTEBOOK)
    pod["metadata"] |= {"labels": {"a": "y", "no": "NO", "b": "offer"}}
    pod["metadata"]["annotations"]["gpu-fraction.dev/framework-env"] = "off"
    out = command("mutate", "-f", "-", stdin=json.dumps(pod)).out
    assert "gpu-fraction.dev/framework-env: 'off'\n" in out
    assert "a: 'y'\n    'no': 'NO'\n    b: offer\n" in out


def test_amounts_as_numbers(command: Command) -> None:
    """People write them so, and the API server takes them."""
    text = NOTEBOOK + "      resources: {limits: {cpu: 0.5, memory: 1e9, ephemeral-storage: 5}}\n"
    result = command("mutate", "-f", "-", stdin=text)
    assert result.code == 0
    assert "cpu: 0.5, memory: 1e9, ephemeral-storage: 5" in result.out
    gpu = NOTEBOOK + "      resources: {limits: {nvidia.com/gpu: 1}}\n"
    refused = command("mutate", "-f", "-", stdin=gpu)
    assert refused.code == 1
    assert (
        "spec.containers[0].resources[nvidia.com/gpu]: requests a GPU in addition to"
        in refused.err
    )


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
        (("containers:", "containers: {main: {}}\nignored:"), "pod"),
        (("spec:", "spec: [7]\nignored:"), "pod"),
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
    assert result.err.startswith(f"-:1 Pod/notebook: {path}: not a Pod: Expected ")


@pytest.mark.parametrize("given", ["gpu-fraction", "gpu-memory"])
def test_a_share_without_a_container(command: Command, given: str) -> None:
    """The share is asked for; what lacks is who gets it."""
    text = NOTEBOOK.split("spec:")[0].replace("gpu-fraction", given).replace("0.25", "1")
    result = command("mutate", "-f", "-", stdin=text)
    assert result.err == (
        f"-:1 Pod/notebook: metadata.annotations[{given}]: no container can get it; add one to "
        "spec.containers\n"
    )


def test_no_field_is_as_null(command: Command) -> None:
    """As the API server reads it."""
    text = "kind: Job\nspec:\n  template:\n    metadata:\n    spec:\n      containers:\n"
    result = command("mutate", "-f", "-", stdin=text)
    assert (result.code, result.out, result.err) == (0, text, "")
