"""Requests are data, so what is sent can be read off without a server."""

from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest

from gpu_fraction.kube import requests
from gpu_fraction.kube.requests import PatchKind, Selection, WriteOptions
from gpu_fraction.kube.resources import GPU_QUOTAS, NODES, PODS, Address


def query_of(request: requests.Request) -> dict[str, list[str]]:
    """The query parameters that go over the wire."""
    return parse_qs(urlsplit(request.target).query, keep_blank_values=True)


@pytest.mark.parametrize(
    ("address", "path"),
    [
        (PODS.at(), "/api/v1/pods"),
        (PODS.at(namespace="a"), "/api/v1/namespaces/a/pods"),
        (PODS.at("p", namespace="a"), "/api/v1/namespaces/a/pods/p"),
        (
            PODS.at("p", namespace="a", subresource="binding"),
            "/api/v1/namespaces/a/pods/p/binding",
        ),
        (NODES.at("n").sub("status"), "/api/v1/nodes/n/status"),
        (
            GPU_QUOTAS.at("q", namespace="a"),
            "/apis/gpu-fraction.dev/v1alpha1/namespaces/a/gpuquotas/q",
        ),
        (NODES.at("a:b?c#d"), "/api/v1/nodes/a%3Ab%3Fc%23d"),
    ],
)
def test_addresses_have_the_paths_of_the_api(address: Address, path: str) -> None:
    """Core and grouped resources, with and without a namespace; odd names are escaped."""
    assert address.path == path


@pytest.mark.parametrize("name", ["..", ".", "a/b", "../secrets/x", "a%2Fb"])
def test_a_name_cannot_leave_its_place(name: str) -> None:
    """A name that would change the path is refused before anything is sent."""
    with pytest.raises(ValueError, match="may not"):
        PODS.at(name, namespace="a")
    with pytest.raises(ValueError, match="may not"):
        PODS.at("p", namespace=name)


def test_addresses_that_name_nothing_are_refused() -> None:
    """A pod needs a namespace, a node has none, a subresource needs an object."""
    with pytest.raises(ValueError, match="namespace is needed"):
        PODS.at("p")
    with pytest.raises(ValueError, match="no namespaces"):
        NODES.at("n", namespace="a")
    with pytest.raises(ValueError, match="name is needed"):
        PODS.at(namespace="a", subresource="status")


def test_a_list_asks_for_one_page() -> None:
    """Selectors and size are sent, and the continuation of the page before."""
    selection = Selection("app in (a,b)", "spec.nodeName=n1")
    first = requests.list_page(PODS.at(), selection, limit=500)
    assert query_of(first) == {
        "labelSelector": ["app in (a,b)"],
        "fieldSelector": ["spec.nodeName=n1"],
        "limit": ["500"],
    }
    second = requests.list_page(PODS.at(), limit=500, continuation="x y")
    assert query_of(second) == {"limit": ["500"], "continue": ["x y"]}


def test_a_watch_asks_for_bookmarks() -> None:
    """Without bookmarks a quiet watch could not be told from a dead one."""
    request = requests.watch(PODS.at(), resource_version="7", timeout_s=300)
    assert query_of(request) == {
        "watch": ["true"],
        "allowWatchBookmarks": ["true"],
        "timeoutSeconds": ["300"],
        "resourceVersion": ["7"],
    }


def test_only_repeatable_requests_are_idempotent() -> None:
    """A create may make a second object and a JSON patch may append twice."""
    pod = PODS.at("p", namespace="a")
    idempotent = {
        "create": requests.create(PODS.at(namespace="a"), {}).idempotent,
        "replace": requests.replace(pod, {}).idempotent,
        "merge": requests.patch(pod, PatchKind.MERGE, {}).idempotent,
        "strategic": requests.patch(pod, PatchKind.STRATEGIC, {}).idempotent,
        "json": requests.patch(pod, PatchKind.JSON, []).idempotent,
        "apply": requests.apply(pod, {}, field_manager="m", force=False).idempotent,
        "delete": requests.delete(pod).idempotent,
        "get": requests.get(pod).idempotent,
    }
    assert [verb for verb, repeatable in idempotent.items() if not repeatable] == [
        "create",
        "json",
    ]


def test_a_deletion_carries_its_preconditions() -> None:
    """Uid and version guard against deleting a successor of the same name."""
    preconditions = {"uid": "u", "resourceVersion": "3"}
    request = requests.delete(PODS.at("p", namespace="a"), {"preconditions": preconditions})
    assert msgspec.json.decode(request.body or b"") == {
        "apiVersion": "v1",
        "kind": "DeleteOptions",
        "preconditions": preconditions,
    }


def test_write_options_and_encoded_bodies_pass_through() -> None:
    """Dry run and field manager become parameters; bytes are sent as they are."""
    options = WriteOptions(dry_run=True, field_manager="m")
    request = requests.create(PODS.at(namespace="a"), b'{"a":1}', options)
    assert request.body == b'{"a":1}'
    assert query_of(request) == {"dryRun": ["All"], "fieldManager": ["m"]}
