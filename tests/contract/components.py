"""The contract of what is built on the client: the election, the recorder, the reflector."""

import asyncio

from gpu_fraction.kube.client import Client
from gpu_fraction.kube.election import Election, LeaseTimings
from gpu_fraction.kube.events import EventRecorder, EventType, reference
from gpu_fraction.kube.objects import Identity, Meta
from gpu_fraction.kube.reflector import Reflector
from gpu_fraction.kube.requests import PatchKind
from gpu_fraction.kube.resources import EVENTS, LEASES, PODS, SECRETS
from tests.builders.pods import plain_pod
from tests.contract.manifests import Manifest, secret

TIMINGS = LeaseTimings(duration_s=3, renew_deadline_s=2.0, retry_period_s=0.1)


class ComponentsContract:
    """They work against any server."""

    async def test_two_candidates_lead_one_after_the_other(
        self, client: Client, namespace: str
    ) -> None:
        """The second begins when the first ends, and the Lease tells the story."""
        order: list[str] = []

        async def lead(name: str, until: asyncio.Event) -> None:
            async def work() -> None:
                order.append(f"{name} begins")
                await until.wait()
                order.append(f"{name} ends")

            election = Election(
                client, name="quota", namespace=namespace, identity=name, timings=TIMINGS
            )
            await election.run(work)

        first_ends, second_ends = asyncio.Event(), asyncio.Event()
        async with asyncio.TaskGroup() as tasks, asyncio.timeout(20):
            first = tasks.create_task(lead("first", first_ends))
            while not order:
                await asyncio.sleep(0.02)
            second = tasks.create_task(lead("second", second_ends))
            await asyncio.sleep(0.5)
            first_ends.set()
            await first
            second_ends.set()
            await second
        assert order == ["first begins", "first ends", "second begins", "second ends"]
        lease = await client.get(LEASES.at("quota", namespace=namespace), Manifest)
        assert lease["spec"]["leaseTransitions"] == 1
        assert lease["spec"]["holderIdentity"] == ""

    async def test_events_are_written_and_counted(self, client: Client, namespace: str) -> None:
        """Two equal events are one object with count 2, which names the pod and its uid."""
        made = await client.create(PODS.at(namespace=namespace), plain_pod("p"), Identity)
        recorder = EventRecorder(client, component="gpu-fraction-contract", instance="pod-0")
        run = asyncio.create_task(recorder.run())
        for _ in range(2):
            recorder.record(reference(PODS, made.metadata), EventType.WARNING, "Refused", "no")
        async with asyncio.timeout(20):
            await recorder.written()
        run.cancel()
        await asyncio.wait((run,))
        listing = await client.list(EVENTS.at(namespace=namespace), Manifest)
        own = [event for event in listing.items if event["reason"] == "Refused"]
        assert [event["count"] for event in own] == [2]
        assert own[0]["involvedObject"]["uid"] == made.metadata.uid
        assert own[0]["source"]["component"] == "gpu-fraction-contract"

    async def test_the_reflector_follows(self, client: Client, namespace: str) -> None:
        """What is there, what comes, what changes and what goes."""
        collection = SECRETS.at(namespace=namespace)
        await client.create(collection, secret("there"), Identity)
        reflector = Reflector(client, collection, Identity)
        run = asyncio.create_task(reflector.run())

        async def until(expected: set[str]) -> None:
            while {obj.metadata.name for obj in reflector.store} & {"there", "new"} != expected:
                await asyncio.sleep(0.02)

        async with asyncio.timeout(20):
            await reflector.synced.wait()
            await until({"there"})
            await client.create(collection, secret("new"), Identity)
            await until({"there", "new"})
            at = SECRETS.at("new", namespace=namespace)
            label = {"metadata": {"labels": {"a": "1"}}}
            changed = await client.patch(at, PatchKind.MERGE, label, Identity)
            while reflector.store.get("new", namespace) != changed:
                await asyncio.sleep(0.02)
            await client.delete(SECRETS.at("there", namespace=namespace))
            await until({"new"})
        run.cancel()
        await asyncio.wait((run,))

    async def test_identities_are_decoded_alike(self, client: Client, namespace: str) -> None:
        """Metadata of a written and of a read object agree."""
        made = await client.create(SECRETS.at(namespace=namespace), secret("s"), Identity)
        read = await client.get(SECRETS.at("s", namespace=namespace), Identity)
        assert made == read
        assert isinstance(read.metadata, Meta)
