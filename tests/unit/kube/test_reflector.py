"""The reflector's copy stays right whatever the server does."""

import asyncio
from typing import Any

import pytest

from gpu_fraction.kube import errors
from gpu_fraction.kube.access import Access
from gpu_fraction.kube.backoff import Backoff
from gpu_fraction.kube.client import Client, connect
from gpu_fraction.kube.objects import Meta
from gpu_fraction.kube.reflector import Reflector, ReflectorSettings
from gpu_fraction.kube.requests import PatchKind, Selection
from gpu_fraction.kube.resources import GPU_QUOTAS, PODS
from gpu_fraction.kube.store import Change
from gpu_fraction.kube.watching import EventKind
from gpu_fraction.sandbox.apiserver import (
    Answer,
    ApiServer,
    DelayWatch,
    DropWatch,
    Fault,
    Hang,
    Kind,
    Text,
)
from tests.support.access import fixed
from tests.unit.kube.following import (
    SETTINGS,
    Pod,
    Recorder,
    following,
    manifest,
    names,
    until,
)

pytestmark = pytest.mark.usefixtures("no_blocking_calls")


@pytest.fixture
def recorder() -> Recorder:
    """A fresh recorder."""
    return Recorder()


async def test_the_copy_follows_the_server(
    api: ApiServer, client: Client, recorder: Recorder
) -> None:
    """What is there is listed, what changes is followed, in order and once."""
    api.add(*(manifest(f"p{n}") for n in range(7)))
    async with following(client, recorder) as reflector:
        assert names(reflector) == {f"p{n}" for n in range(7)}
        await client.create(PODS.at(namespace="team-a"), manifest("new"), Meta)
        await client.patch(
            PODS.at("new", namespace="team-a"),
            PatchKind.MERGE,
            {"metadata": {"labels": {"a": "1"}}},
            Meta,
        )
        await client.delete(PODS.at("new", namespace="team-a"))
        await until(lambda: ("deleted", "new") in recorder.changes)
        assert names(reflector) == {f"p{n}" for n in range(7)}
        assert reflector.resource_version == str(api.storage.revision)
    marked = ("updated", "new")  # as being deleted
    assert recorder.changes[7:] == [
        ("added", "new"),
        ("updated", "new"),
        marked,
        ("deleted", "new"),
    ]
    assert recorder.lists == 1


async def test_a_late_listener_hears_of_what_is_there(
    api: ApiServer, client: Client, recorder: Recorder
) -> None:
    """Subscribing after the sync replays the present objects."""
    api.add(manifest("p"))
    async with following(client, recorder) as reflector:
        late = Recorder()
        reflector.subscribe(late.changed)
        assert late.changes == [("added", "p")]


async def test_who_listens_no_longer_hears_nothing(
    api: ApiServer, client: Client, recorder: Recorder
) -> None:
    """While others go on."""
    former: list[str] = []

    def listen(change: Change[Pod]) -> None:
        former.append(change.new.metadata.name if change.new else "")

    api.add(manifest("old"))
    async with following(client, recorder) as reflector:
        reflector.subscribe(listen)
        reflector.unsubscribe(listen)
        await client.create(PODS.at(namespace="team-a"), manifest("new"), Meta)
        await until(lambda: ("added", "new") in recorder.changes)
        assert former == ["old"]
        with pytest.raises(ValueError, match="not in list"):
            reflector.unsubscribe(listen)


async def test_selectors_bound_the_copy(
    api: ApiServer, client: Client, recorder: Recorder
) -> None:
    """A pod that stops matching leaves the copy; the index follows."""
    api.add(manifest("here", node="n1", a="1"), manifest("there", node="n2", a="1"))
    selection = Selection(labels="a=1", fields="spec.nodeName=n1")
    async with following(client, recorder, selection=selection) as reflector:
        assert names(reflector) == {"here"}
        assert [p.metadata.name for p in reflector.store.find("node", "n1")] == ["here"]
        await client.patch(
            PODS.at("here", namespace="team-a"),
            PatchKind.MERGE,
            {"metadata": {"labels": {"a": "2"}}},
            Meta,
        )
        await until(lambda: not names(reflector))
        assert reflector.store.find("node", "n1") == []


async def test_a_broken_watch_resumes_where_it_was(
    api: ApiServer, client: Client, recorder: Recorder
) -> None:
    """Connections that break lose and repeat nothing, and cost no new list."""
    api.faults.add(Fault(DropWatch(after_events=2), verb="watch", times=4))
    async with following(client, recorder) as reflector:
        for number in range(12):
            api.add(manifest(f"p{number}"))
            await asyncio.sleep(0.005)
        await until(lambda: len(reflector.store) == 12)
    assert sorted(recorder.changes) == sorted(("added", f"p{n}") for n in range(12))
    assert recorder.lists == 1
    assert errors.TransportError in recorder.failures


@pytest.mark.parametrize(
    "action", [Answer(500), Answer(503), Answer(429), Text(503), Answer(403), Answer(401)]
)
async def test_a_watch_that_cannot_open_is_tried_again(
    api: ApiServer, client: Client, recorder: Recorder, action: Any
) -> None:
    """Faults of the server and missing permissions end when they end."""
    api.faults.add(Fault(action, verb="watch", times=3))
    async with following(client, recorder) as reflector:
        api.add(manifest("p"))
        await until(lambda: names(reflector) == {"p"})
    assert api.calls.count(("watch", "pods")) == 4
    assert recorder.failures


@pytest.mark.parametrize("as_event", [True, False])
async def test_a_version_that_expired_leads_to_a_new_list(
    api: ApiServer, client: Client, recorder: Recorder, *, as_event: bool
) -> None:
    """410, as an event or as a status: what was missed shows after the relist."""
    api.add(manifest("stays"), manifest("goes"))
    if not as_event:
        api.faults.add(Fault(DropWatch(after_events=1), verb="watch"))
        api.faults.add(Fault(Answer(410), verb="watch"))
    async with following(client, recorder) as reflector:
        await until(lambda: ("watch", "pods") in api.calls)
        await asyncio.sleep(0.05)
        api.add(manifest("comes"))
        api.remove(PODS, "goes", "team-a")
        if as_event:
            api.storage.compact()
        await until(lambda: names(reflector) == {"stays", "comes"})
        await asyncio.sleep(0.05)
    assert sorted(recorder.changes[2:]) == [("added", "comes"), ("deleted", "goes")]
    assert errors.GoneError in recorder.failures
    assert recorder.lists == 2


async def test_a_watch_gone_silent_is_replaced(
    api: ApiServer, client: Client, recorder: Recorder
) -> None:
    """A connection that hangs after it opened is noticed by its silence."""
    api.faults.add(Fault(DelayWatch(60), verb="watch"))
    settings = ReflectorSettings(backoff=SETTINGS.backoff, silence_s=0.1)
    async with following(client, recorder, settings=settings) as reflector:
        api.add(manifest("p"))
        await until(lambda: names(reflector) == {"p"})
    assert errors.DeadlineError in recorder.failures


async def test_bookmarks_keep_a_quiet_watch_alive_and_current(recorder: Recorder) -> None:
    """Versions that concern other resources are learned, so that they cannot expire here."""
    quiet = ApiServer(bookmark_period_s=0.02)
    quiet.add_namespace("team-a")
    settings = ReflectorSettings(backoff=SETTINGS.backoff, silence_s=2.0)
    async with (
        quiet.serve(),
        connect(fixed(Access(server=quiet.url)), component="test") as client,
        following(client, recorder, settings=settings) as reflector,
    ):
        quiet.add_namespace("another")
        await until(lambda: reflector.resource_version == str(quiet.storage.revision))
        quiet.storage.compact()
        await asyncio.sleep(0.1)
    assert recorder.lists == 1
    assert set(recorder.kinds) == {EventKind.BOOKMARK}


async def test_a_version_from_another_life_of_the_server_is_given_up(
    api: ApiServer, client: Client, recorder: Recorder
) -> None:
    """After a restore the version is refused for ever; some failures later a list heals it."""
    api.faults.add(Fault(Answer(504, "Too large resource version"), verb="watch", times=6))
    async with following(client, recorder) as reflector:
        await until(lambda: recorder.lists >= 2)
        api.add(manifest("p"))
        await until(lambda: names(reflector) == {"p"})


async def test_a_server_that_closes_watches_at_once_is_not_hammered(
    api: ApiServer, client: Client, recorder: Recorder
) -> None:
    """Empty watches count as failures, so the waits between them grow."""
    settings = ReflectorSettings(
        backoff=Backoff(initial_s=0.05, cap_s=10, jitter=0), watch_timeout_s=(0, 0)
    )
    async with following(client, recorder, settings=settings):
        await asyncio.sleep(0.6)
    watches = [call for call in api.calls if call == ("watch", "pods")]
    assert 2 <= len(watches) <= 5  # after 0, 50, 150, 350 ms; without waits hundreds


async def test_one_odd_object_stops_nothing(
    api: ApiServer, client: Client, recorder: Recorder
) -> None:
    """An object that does not decode keeps its last good state; the others go on."""
    odd = manifest("odd")
    odd["spec"]["nodeName"] = 7
    api.add(manifest("good"), odd)
    async with following(client, recorder) as reflector:
        assert names(reflector) == {"good"}
        api.add({**odd, "metadata": {**odd["metadata"], "name": "good"}}, manifest("next"))
        await until(lambda: names(reflector) == {"good", "next"})
        good = reflector.store.get("good", "team-a")
        assert good is not None
        assert good.spec.node_name == ""
        assert reflector.resource_version == str(api.storage.revision)
        api.remove(PODS, "odd", "team-a")
        api.remove(PODS, "good", "team-a")
        await until(lambda: names(reflector) == {"next"})
    assert recorder.bad == 4


async def test_a_relist_keeps_an_object_that_turned_odd(
    api: ApiServer, client: Client, recorder: Recorder
) -> None:
    """Unreadable is not deleted."""
    api.add(manifest("p"))
    async with following(client, recorder) as reflector:
        await until(lambda: ("watch", "pods") in api.calls)
        await asyncio.sleep(0.05)
        odd = manifest("p")
        odd["spec"]["nodeName"] = 7
        api.add(odd)
        api.storage.compact()
        await until(lambda: recorder.lists == 2)
        assert names(reflector) == {"p"}
    assert recorder.changes == [("added", "p")]


async def test_a_line_longer_than_any_buffer_is_read(
    api: ApiServer, client: Client, recorder: Recorder
) -> None:
    """6 MiB in one event; aiohttp's own readline gives up at 4 MiB with these settings."""
    async with following(client, recorder) as reflector:
        await until(lambda: ("watch", "pods") in api.calls)
        api.add(manifest("huge", a="x" * (6 * 2**20)), manifest("after"))
        await until(lambda: names(reflector) == {"huge", "after"})
        huge = reflector.store.get("huge", "team-a")
        assert huge is not None
        assert len(huge.metadata.labels["a"]) == 6 * 2**20
    assert recorder.failures == []


async def test_a_recreated_object_is_a_deletion_and_an_addition(
    api: ApiServer, client: Client, recorder: Recorder
) -> None:
    """The same name with another uid is another object, also where a relist joins the two."""
    api.add(manifest("p"))
    async with following(client, recorder):
        await until(lambda: ("watch", "pods") in api.calls)
        await asyncio.sleep(0.05)
        api.remove(PODS, "p", "team-a")
        api.add(manifest("p"))
        api.storage.compact()
        await until(lambda: recorder.lists == 2)
    assert recorder.changes == [("added", "p"), ("deleted", "p"), ("added", "p")]


async def test_a_resource_that_does_not_exist_yet_is_waited_for(
    api: ApiServer, client: Client
) -> None:
    """Before its CRD is installed the list answers 404; then the copy fills."""
    reflector = Reflector(client, GPU_QUOTAS.at(), Pod, settings=SETTINGS)
    assert reflector.unsynced() == "GPUQuotas are being read"
    async with asyncio.TaskGroup() as tasks:
        run = tasks.create_task(reflector.run())
        await until(lambda: api.calls == [] and not reflector.synced.is_set())
        await asyncio.sleep(0.05)
        api.register(Kind(GPU_QUOTAS, custom=True))
        async with asyncio.timeout(5):
            await reflector.synced.wait()
        run.cancel()


async def test_a_hanging_list_does_not_stop_the_reflector(
    api: ApiServer, hasty: Client, recorder: Recorder
) -> None:
    """The list has a deadline and is tried again."""
    api.faults.add(Fault(Hang(), verb="list", times=2))
    api.add(manifest("p"))
    async with following(hasty, recorder) as reflector:
        assert names(reflector) == {"p"}


async def test_a_copy_that_nothing_is_heard_of_is_not_relied_on(
    api: ApiServer, client: Client, recorder: Recorder
) -> None:
    """It stays as it was, and says that it may be old, until the server speaks again."""
    api.add(manifest("p"))
    settings = ReflectorSettings(backoff=SETTINGS.backoff, silence_s=0.1, stale_s=0.3)
    async with following(client, recorder, settings=settings) as reflector:
        assert reflector.unsynced() is None
        for verb in ("watch", "list"):
            api.faults.add(Fault(Answer(503), verb=verb, times=None))
        await until(lambda: reflector.unsynced() is not None)
        assert reflector.unsynced() == "Pods: no answer of the API server for more than 0.3 s"
        assert names(reflector) == {"p"}
        api.faults.clear()
        await until(lambda: reflector.unsynced() is None)


async def test_a_server_that_sends_no_bookmarks_is_still_heard(
    api: ApiServer, client: Client, recorder: Recorder
) -> None:
    """A watch that opened shows that nothing was missed, however quiet the collection is."""
    settings = ReflectorSettings(backoff=SETTINGS.backoff, silence_s=0.4, stale_s=1.1)
    async with following(client, recorder, settings=settings) as reflector:
        await until(lambda: api.calls.count(("watch", "pods")) == 4)  # 1.2 s of silence
        assert reflector.unsynced() is None
    assert recorder.lists == 1
