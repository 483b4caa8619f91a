"""What is read of a cluster, with whatever rights and faults."""

from collections.abc import Iterable

import pytest

from gpu_fraction.dashboard import events, snapshot
from gpu_fraction.dashboard.snapshot import Snapshot
from gpu_fraction.kube.access import Access
from gpu_fraction.kube.client import connect
from gpu_fraction.kube.errors import ForbiddenError, KubeError, TransportError, UnauthorizedError
from gpu_fraction.sandbox.apiserver import Answer, ApiServer, Fault, Hang, Text
from gpu_fraction.sandbox.apiserver.faults import Action
from tests.builders.pods import plain_pod
from tests.builders.views import gpu_pod, server, small_cluster
from tests.support.access import fixed

FORBIDDEN = Answer(403, 'pods is forbidden: User "u" cannot list resource "pods"')


async def reading(
    api: ApiServer, namespaces: Iterable[str] = (), timeout_s: float = 5.0, **wanted: Iterable[str]
) -> Snapshot:
    """Read the server's cluster."""
    async with api.serve(), connect(fixed(Access(api.url)), component="test") as client:
        return await snapshot.read(
            client,
            namespaces=[*namespaces],
            timeout_s=timeout_s,
            **{k: [*v] for k, v in wanted.items()},
        )


def spoil(api: ApiServer, resource: str, action: Action, times: int | None = None) -> None:
    """Answer lists of a resource otherwise."""
    api.faults.add(Fault(action, "list", resource, times=times))


async def test_everything_is_read() -> None:
    """With all rights nothing is missing."""
    found = await reading(server(*small_cluster()))
    assert not found.gaps
    assert found.pods.whole
    assert [len(part.items) for part in (found.nodes, found.pods, found.quotas)] == [2, 3, 2]


@pytest.mark.parametrize("part", snapshot.PARTS)
async def test_a_part_without_rights_leaves_the_others_whole(part: str) -> None:
    """One 403 is one gap with the server's words."""
    api = server(*small_cluster())
    resource = snapshot.PARTS[part][0]
    spoil(api, resource.qualified, Answer(403, "no, because"))
    found = await reading(api, ["team-a"])
    (gap,) = found.gaps
    assert (gap.what, gap.why, gap.text) == (resource.plural, "forbidden", "no, because")
    assert not getattr(found, part).items
    others = set(snapshot.PARTS) - {part}
    assert all(getattr(found, name).whole for name in others)


async def test_pods_of_a_namespace_stand_for_those_of_the_cluster() -> None:
    """A user who may list pods in one namespace sees those, and what is missing."""
    api = server(*small_cluster())
    spoil(api, "pods", FORBIDDEN, times=1)
    found = await reading(api, ["team-b"])
    assert {pod.metadata.name for pod in found.pods.items} == {"serve"}
    assert not found.pods.whole
    assert found.pods.read
    assert found.pods.gap is not None
    assert found.pods.gap.namespaces == ("team-b",)


async def test_a_namespace_without_rights_hides_no_other() -> None:
    """Of several namespaces, those with rights are read."""
    api = server(*small_cluster())
    spoil(api, "pods", FORBIDDEN, times=2)
    found = await reading(api, ["team-a", "team-b"])
    assert {pod.metadata.namespace for pod in found.pods.items} == {"team-b"}


async def test_a_resource_that_the_server_has_not_is_no_gap() -> None:
    """Without the CRD there are no quotas, which is an answer."""
    api = ApiServer()
    found = await reading(api)
    assert found.quotas.gap is not None
    assert found.quotas.gap.why == "absent"
    assert found.quotas.whole
    assert not found.gaps


async def test_a_part_that_hangs_ends_at_its_deadline() -> None:
    """The other parts are there."""
    api = server(*small_cluster())
    spoil(api, "nodes", Hang())
    found = await reading(api, timeout_s=0.3)
    assert [(gap.what, gap.why) for gap in found.gaps] == [("nodes", "late")]
    assert found.nodes.gap is not None
    assert "nodes: no answer within 0.3 s" in found.nodes.gap.text
    assert found.pods.whole


async def test_a_fault_of_the_server_is_a_gap() -> None:
    """A proxy's page in place of an answer, too."""
    api = server(*small_cluster())
    spoil(api, "nodes", Text(404))
    spoil(api, "pods", Answer(500, "boom"))
    found = await reading(api)
    assert {(gap.what, gap.why) for gap in found.gaps} == {("pods", "failed")}


@pytest.mark.parametrize(("action", "error"), [(Answer(401, "who?"), UnauthorizedError)])
async def test_an_unknown_caller_gets_one_error(action: Action, error: type[KubeError]) -> None:
    """Not five gaps."""
    api = server(*small_cluster())
    api.faults.add(Fault(action, times=None))
    with pytest.raises(error, match="who"):
        await reading(api)


async def test_a_server_that_is_not_there_is_one_error() -> None:
    """It names the address."""
    async with connect(fixed(Access("http://127.0.0.1:1")), component="test") as client:
        with pytest.raises((TransportError, KubeError)):
            await snapshot.read(client, timeout_s=0.3)


async def test_parts_that_are_not_wanted_are_not_asked_for() -> None:
    """A view of quotas needs no nodes."""
    api = server(*small_cluster())
    found = await reading(api, parts=["quotas"])
    assert [resource for _, resource in api.calls] == ["gpuquotas.gpu-fraction.dev"]
    assert not found.nodes.read
    assert not found.gaps


async def test_an_object_that_does_not_decode_is_named() -> None:
    """The others of the list are read."""
    broken = gpu_pod("odd")
    broken["spec"]["containers"][0]["resources"]["limits"] = "many"
    found = await reading(server(*small_cluster(), broken))
    assert len(found.pods.items) == 3
    (text,) = found.pods.unreadable
    assert text.startswith("team-a/odd: ")


async def test_pods_without_gpus_keep_their_names_only() -> None:
    """A large cluster has many, and no view shows them."""
    found = await reading(server(plain_pod("web", namespace="team-a", annotations={"a": "b"})))
    (pod,) = found.pods.items
    assert pod.metadata.name == "web"
    assert not pod.gpu
    assert not pod.annotations


async def test_events_of_one_object_oldest_first() -> None:
    """Those of other objects of the name are not among them."""
    api = server(*small_cluster())

    def event(name: str, kind: str, at: str) -> dict[str, object]:
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": "team-a"},
            "involvedObject": {"kind": kind, "name": "next", "namespace": "team-a"},
            "reason": name,
            "lastTimestamp": at,
        }

    api.add(
        event("second", "Pod", "2026-12-01T12:00:02Z"),
        event("first", "Pod", "2026-12-01T12:00:01Z"),
        event("other", "Deployment", "2026-12-01T12:00:00Z"),
    )
    async with api.serve(), connect(fixed(Access(api.url)), component="test") as client:
        found = await events.about(client, "Pod", "next", namespace="team-a")
        assert [one.reason for one in found] == ["first", "second"]
        api.faults.add(Fault(Answer(403, "no"), "list", "events", times=None))
        with pytest.raises(ForbiddenError):
            await events.about(client, "Pod", "next", namespace="team-a")
