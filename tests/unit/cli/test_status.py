"""``gpu-fraction status`` against a server with a small cluster."""

import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from gpu_fraction.domain.assignment import CardShare
from gpu_fraction.sandbox.apiserver import Answer, ApiServer, Fault
from tests.builders.cards import card
from tests.builders.views import gpu_node, gpu_pod, quota, server, small_cluster
from tests.support.access import kubeconfig, serving
from tests.unit.cli.conftest import Command, Result

Status = Callable[..., Result]


@pytest.fixture
def api() -> ApiServer:
    """A server with the small cluster."""
    return server(*small_cluster())


@pytest.fixture
def status(api: ApiServer, tmp_path: Path, command: Command) -> Iterator[Status]:
    """Run the command against it."""
    with serving(api) as url:
        file = kubeconfig(tmp_path, url)
        yield lambda *words: command("status", f"--kubeconfig={file}", *words)


def forbid(api: ApiServer, resource: str, times: int | None = None) -> None:
    """Refuse to list a resource."""
    text = f'{resource} is forbidden: User "u" cannot list resource "{resource}"'
    api.faults.add(Fault(Answer(403, text), "list", resource, times=times))


def rows(result: Result) -> list[list[str]]:
    """The cells of the first table, without its header."""
    lines = result.out.partition("\n\n")[0].splitlines()[1:]
    return [re.split(r"  +", line) for line in lines]


def test_one_line_for_each_card(status: Status) -> None:
    """With what is given, what is free, and who has it."""
    found = status("--ascii")
    assert (found.code, found.err) == (0, "")
    assert found.out.startswith("NODE  GPU  MODEL")
    assert rows(found) == [
        ["n1", "0", "A100-SXM4-80GB", "#######...", "75%", "0.25 20Gi", "2", "team-a,team-b"],
        ["n1", "1", "A100-SXM4-80GB", "..........", "0%", "1 80Gi", "0", "-"],
        ["n2", "0", "Tesla T4", "..........", "0%", "XID 79", "0", "-"],
        ["n2", "1", "Tesla T4", "..........", "0%", "1 16Gi", "0", "-"],
    ]


def test_below_the_table_are_sums_and_who_waits(status: Status, api: ApiServer) -> None:
    """And quotas from 90 % on."""
    told = {"type": "PodScheduled", "status": "False", "message": "0/2 nodes are available"}
    api.add(
        gpu_pod("next", milli=900, conditions=[told]),
        quota("tight", {"cores": "1"}, {"cores": "950m"}),
    )
    found = status("--ascii")
    below = found.out.partition("\n\n")[2]
    assert re.search(r"A100-SXM4-80GB +2 +###\.+ +37% +1\.25 +1 +1 +2\n", below)
    assert re.search(
        r"waiting: team-a/next asks for 0.9 GPU, \d+s: 0/2 nodes are available", below
    )
    assert "quota team-a/tight: cores 950m of 1\n" in below
    assert "budget" not in below


@pytest.mark.parametrize(
    ("by", "header", "first"),
    [
        ("node", "NODE", ["n1", "A100-SXM4-80GB", "2"]),
        ("model", "MODEL", ["A100-SXM4-80GB", "2"]),
        ("namespace", "NAMESPACE", ["team-a", "2", "1", "1", "0.5", "40Gi"]),
    ],
)
def test_rows_by_another_name(status: Status, by: str, header: str, first: list[str]) -> None:
    """The same cards summed otherwise."""
    found = status("--by", by, "--ascii")
    assert found.out.startswith(header)
    assert rows(found)[0][: len(first)] == first


def test_pods_are_those_of_the_context_unless_told(status: Status) -> None:
    """As ``kubectl get pods``: of one namespace, another, or all."""
    assert rows(status("--by=pod", "-n", "team-b"))[0][:5] == [
        *("team-b", "serve", "main", "running", "0.25"),
    ]
    assert {row[0] for row in rows(status("--by=pod", "-A"))} == {"team-a", "team-b"}
    assert not rows(status("--by=pod"))


def test_wide_shows_more(status: Status) -> None:
    """UUID, isolation, health, driver and age."""
    header, first = status("-o", "wide", "--ascii").out.splitlines()[:2]
    assert header.split()[-5:] == ["UUID", "ISOLATION", "HEALTH", "DRIVER", "AGE"]
    assert first.split()[-5:-1] == ["GPU-a", "none", "ok", "580.65.06"]


def test_programs_get_every_amount(status: Status) -> None:
    """As JSON and YAML with one content, and as CSV and names."""
    found = json.loads(status("-o", "json").out)
    assert (found["apiVersion"], found["kind"]) == ("cli.gpu-fraction.dev/v1", "CardList")
    first = found["items"][0]
    assert first["coreMilli"] == {"total": 1000, "given": 750, "free": 250}
    assert first["memoryMib"] == {"total": 81920, "given": 61440, "free": 20480}
    assert {one["pod"] for one in first["slices"]} == {"train", "serve"}
    assert (found["complete"], found["waiting"], found["gaps"]) == (True, ["team-a/next"], [])
    assert YAML(typ="safe", pure=True).load(status("-o", "yaml").out) == found
    table = list(csv.DictReader(io.StringIO(status("-o", "csv").out)))
    assert [row["used"] for row in table] == ["75%", "0%", "0%", "0%"]
    assert status("-o", "name").out.split() == ["gpu/GPU-a", "gpu/GPU-b", "gpu/GPU-c", "gpu/GPU-d"]


@pytest.mark.parametrize("by", ["node", "model", "namespace", "pod"])
def test_each_kind_of_row_has_a_kind_for_programs(status: Status, by: str) -> None:
    """And is no less than the table."""
    found = json.loads(status("--by", by, "-A", "-o", "json").out)
    assert found["kind"] == f"{by.capitalize()}List"
    assert len(found["items"]) == len(rows(status("--by", by, "-A")))


def test_rows_are_sorted_by_any_column(status: Status) -> None:
    """By value, not by text; with a dash downwards."""
    assert [row[0:2] for row in rows(status("--sort=-free"))] == [
        *(["n1", "1"], ["n2", "1"], ["n1", "0"], ["n2", "0"]),
    ]
    refused = status("--sort=price")
    assert (refused.code, refused.out) == (2, "")
    assert "not a column; allowed: node, gpu, model, used" in refused.err


def test_rows_of_one_model_and_of_labelled_objects(status: Status, api: ApiServer) -> None:
    """Labels are those of nodes, or of pods where pods are listed."""
    labelled = gpu_node("n3", card(0, uuid="GPU-x"))
    labelled["metadata"]["labels"] = {"pool": "a"}
    api.add(labelled, gpu_pod("mine", labels={"app": "m"}))
    assert [row[0] for row in rows(status("-l", "pool=a"))] == ["n3"]
    assert [row[0] for row in rows(status("-l", "pool!=a", "--by=node"))] == ["n1", "n2"]
    assert [row[1] for row in rows(status("-l", "app=m", "--by=pod", "-A"))] == ["mine"]
    assert {row[2] for row in rows(status("--model", "t4"))} == {"Tesla T4"}


def test_a_user_of_one_namespace_sees_cards_and_own_pods(status: Status, api: ApiServer) -> None:
    """The rest is a footnote, and free amounts are told to be uncertain."""
    forbid(api, "pods", times=1)
    forbid(api, "gpuquotas.gpu-fraction.dev", times=1)
    found = status("-n", "team-b", "--ascii")
    assert found.code == 0
    assert rows(found)[0][-1] == "team-b"
    assert 'pods: forbidden (shown: team-b): pods is forbidden: User "u"' in found.err
    assert "free amounts are upper bounds" in found.err


def test_rights_that_nothing_depends_on_are_not_missed(status: Status, api: ApiServer) -> None:
    """ResourceSlices say nothing beyond the inventories."""
    forbid(api, "resourceslices.resource.k8s.io")
    assert status().err == ""


def test_a_user_without_the_right_to_nodes_sees_own_pods(status: Status, api: ApiServer) -> None:
    """Whose cards have no index."""
    forbid(api, "nodes")
    found = status("--by=pod", "-n", "team-a")
    assert found.code == 0
    assert [row[1] for row in rows(found)] == ["next", "train"]
    assert "nodes: forbidden" in found.err
    assert "no node has" not in found.err


def test_without_any_right_there_is_no_answer(status: Status, api: ApiServer) -> None:
    """Which scripts can tell from an empty one."""
    for resource in ("nodes", "pods", "gpuquotas.gpu-fraction.dev"):
        forbid(api, resource)
    api.faults.add(Fault(Answer(403, "no"), "list", "resourceslices.resource.k8s.io", times=None))
    found = status()
    assert (found.code, found.out) == (2, "")
    assert "nodes: forbidden" in found.err


def test_an_empty_cluster_says_so(tmp_path: Path, command: Command) -> None:
    """Beside the answer, which is empty."""
    with serving(ApiServer()) as url:
        file = kubeconfig(tmp_path, url)
        found = command("status", f"--kubeconfig={file}")
        listed = command("status", f"--kubeconfig={file}", "-o", "json")
    assert (found.code, found.out) == (0, "")
    assert found.err == "No GPU cards found in the cluster.\n"
    assert json.loads(listed.out)["items"] == []


def test_what_is_wrong_with_the_cluster_is_told(status: Status, api: ApiServer) -> None:
    """Unreadable inventories, cards that nobody has, and cards given away twice."""
    api.add(
        gpu_node("bad", text="{"),
        gpu_pod("stray", CardShare("GPU-z", 100, 100), node="n1"),
        gpu_pod("much", CardShare("GPU-d", 1000, 9000), node="n2"),
        gpu_pod("more", CardShare("GPU-d", 1000, 9000), node="n2"),
    )
    err = status().err
    assert "node bad: gpu-fraction.dev/inventory is unreadable" in err
    assert "1 slices are of cards that no node has, for example of GPU-z (team-a/stray on" in err
    assert "card GPU-d of node n2 is given away beyond its size" in err


def test_names_cannot_write_to_the_terminal(status: Status, api: ApiServer) -> None:
    """A card's model comes from a node, a message from any scheduler."""
    told = {"type": "PodScheduled", "status": "False", "message": "no\x1b[2J\nfake line"}
    api.add(
        gpu_node("n4", card(0, uuid="GPU-y", model="T4\x1b]0;x\x07\u202e")),
        gpu_pod("evil", conditions=[told]),
    )
    found = status("--color=never")
    assert "\x1b" not in found.out + found.err
    assert "\u202e" not in found.out
    assert not any(line.startswith("fake") for line in found.out.splitlines())


@pytest.mark.parametrize(
    ("environ", "flag", "coloured"),
    [
        ({}, (), False),
        ({"FORCE_COLOR": "1"}, (), True),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, (), False),
        ({"NO_COLOR": "1"}, ("--color=always",), True),
        ({"FORCE_COLOR": "1"}, ("--color=never",), False),
        ({"FORCE_COLOR": "1"}, ("-o", "json"), False),
    ],
)
def test_colours_are_for_terminals(
    status: Status,
    monkeypatch: pytest.MonkeyPatch,
    environ: dict[str, str],
    flag: tuple[str, ...],
    *,
    coloured: bool,
) -> None:
    """Unless the environment or a flag says otherwise; a flag wins."""
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert ("\x1b[" in status(*flag).out) is coloured


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--kubeconfig=/nowhere/config",), "kubeconfig /nowhere/config: no such file"),
        (("--server=http://127.0.0.1:1",), "check the address in the kubeconfig"),
        (("--context=absent",), "absent"),
        (("--as-group=g",), "--as-group needs --as"),
        (("--request-timeout=soon",), "'soon' is not a time"),
        (("--watch=0",), "'0' is not 1 to 3600 seconds"),
        (("--namespace=../x",), "namespace '../x' is not a name"),
    ],
)
def test_where_nothing_can_be_asked_the_code_is_2(
    status: Status, words: tuple[str, ...], told: str
) -> None:
    """With what happened and what to do."""
    found = status(*words)
    assert (found.code, found.out) == (2, "")
    assert told in found.err


def test_an_unknown_user_is_told_to_log_in(status: Status, api: ApiServer) -> None:
    """401 is for all of it."""
    api.faults.add(Fault(Answer(401, "Unauthorized"), times=None))
    found = status()
    assert found.code == 2
    assert "log in again" in found.err


def test_without_a_cluster_it_says_how_to_name_one(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A newcomer's first try."""
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    found = command("status")
    assert found.code == 2
    assert "give --kubeconfig, or set KUBECONFIG" in found.err
