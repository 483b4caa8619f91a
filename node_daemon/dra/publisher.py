"""Keeps the ResourceSlices of this node as its cards are."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final, NoReturn

import msgspec
import structlog

from gpu_fraction.domain import dra
from gpu_fraction.domain.inventory import Inventory
from gpu_fraction.kube import errors
from gpu_fraction.kube.client import Client
from gpu_fraction.kube.objects import Meta
from gpu_fraction.kube.reflector import Reflector
from gpu_fraction.kube.requests import Selection, WriteOptions
from gpu_fraction.kube.resources import RESOURCE_SLICES
from gpu_fraction.kube.store import Change
from gpu_fraction.node_daemon.cluster.api_server import WireNode
from gpu_fraction.node_daemon.dra.devices import GATES, Json, devices, dropped, lasting, slices
from gpu_fraction.node_daemon.state.concurrency import Observable, first_completed

PAUSE_S: Final = 0.2
"""Least time between two publications. Chosen: a fight with another writer stays slow, and a
kubelet that starts and deletes the slices is answered before its first pod."""

RETRY_S: Final = 5.0
AGAIN_S: Final = 60.0
"""Pause before a server that dropped fields is tried again: chosen, it may be updated."""

_log = structlog.get_logger()


class WireSlice(msgspec.Struct, frozen=True):
    """A ResourceSlice as plain JSON."""

    metadata: Meta = Meta()
    spec: dict[str, Any] = {}

    @property
    def generation(self) -> int:
        """That of its pool."""
        return int(self.spec.get("pool", {}).get("generation", 0))


class UnsupportedError(Exception):
    """The server does not keep what makes a card a shared device; the message names it."""


class SlicePublisher:
    """Level triggered: what is missing or differs is written again, whatever changed it."""

    def __init__(
        self,
        client: Client,
        node_name: str,
        inventory: Observable[Inventory],
        node: Observable[WireNode],
        refused: Callable[[str], None],
    ) -> None:
        """Publish ``inventory`` for the Node; ``refused`` hears why cards are not offered."""
        self._client = client
        self._node_name = node_name
        self._inventory = inventory
        self._node = node
        self._refused = refused
        self._changed = asyncio.Event()
        self._sent: tuple[list[Json], str] | None = None
        self._answers: dict[str, Any] = {}
        self._generation = 0
        self._taints = True
        self.problem = "cards are not published yet"
        """Why the scheduler cannot give cards away; empty where it can."""
        self._reflector = Reflector(
            client,
            RESOURCE_SLICES.at(),
            WireSlice,
            selection=Selection(fields=f"spec.nodeName={node_name},spec.driver={dra.DRIVER}"),
        )
        self._reflector.subscribe(self._notice)

    def _notice(self, _change: Change[WireSlice]) -> None:
        self._changed.set()

    async def run(self) -> NoReturn:
        """Publish until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._reflector.run(), name="slice watch")
            tasks.create_task(self._publish_forever(), name="slice publisher")
        raise AssertionError("unreachable: the tasks run until cancelled")

    async def _publish_forever(self) -> NoReturn:
        await first_completed(
            synced=self._reflector.synced.wait(), missing=self._reflector.missing.wait()
        )
        while True:
            inventory, node = await self._inventory.wait(), await self._node.wait()
            self._changed.clear()
            wait_s = await self._attempt(inventory, node.metadata.uid)
            waits = {"again": asyncio.sleep(wait_s)} if wait_s else {}
            await first_completed(
                inventory=self._inventory.changed_from(inventory),
                slices=self._changed.wait(),
                **waits,
            )
            await asyncio.sleep(PAUSE_S)

    async def _attempt(self, inventory: Inventory, uid: str) -> float:
        """Publish once; returns the seconds after which to try again, 0 for no need to."""
        try:
            await self._publish(inventory, uid)
        except UnsupportedError as e:
            await self._withdraw(str(e))
            return AGAIN_S
        except errors.NotFoundError:
            await self._withdraw(
                f"the API server does not serve {RESOURCE_SLICES.api_version} (Kubernetes 1.34 "
                "and newer do)"
            )
            return AGAIN_S
        except errors.KubeError as e:
            self.problem = f"cards could not be published: {e}"
            _log.warning("slices_not_published", error=str(e), retry_s=RETRY_S)
            return RETRY_S
        self.problem = ""
        return 0.0

    async def _publish(self, inventory: Inventory, uid: str) -> None:
        wanted = devices(inventory, taints=self._taints)
        seen = {one.metadata.name: one for one in self._reflector.store}
        specs = {name: lasting(one.spec) for name, one in seen.items()}
        if self._sent == (wanted, uid) and specs == self._answers:
            return None
        self._generation = self._next_generation(wanted, seen)
        made = list(slices(self._node_name, uid, self._generation, wanted))
        names = {one["metadata"]["name"] for one in made}
        for one in made:
            if one["metadata"]["name"] not in seen and not await self._keeps(one):
                return await self._publish(inventory, uid)
        for name in seen.keys() - names:
            await self._delete(name)
        answers = {}
        for one in made:
            answer = await self._apply(one)
            self._check(one, answer)
            answers[answer.metadata.name] = lasting(answer.spec)
        self._sent, self._answers = (wanted, uid), answers
        _log.info("slices_published", devices=len(wanted), generation=self._generation)
        return None

    def _next_generation(self, wanted: list[Json], seen: Mapping[str, WireSlice]) -> int:
        """A higher one where the devices differ from those that were published."""
        highest = max([self._generation, *(one.generation for one in seen.values())])
        if self._sent is not None:
            same = self._sent[0] == wanted
        else:
            specs = [seen[name].spec.get("devices") or [] for name in sorted(seen)]
            before = [device for spec in specs for device in spec]
            same = not seen or not dropped(wanted, before)
        return highest if same else highest + 1

    async def _keeps(self, one: Json) -> bool:
        """Ask the server, without storing anything, whether it keeps every field.

        Before a slice exists: in the moment until a stored one is withdrawn, the scheduler
        could give a whole card away.

        Returns:
            False where it drops taints alone, which are left out from now on.

        Raises:
            UnsupportedError: it drops others.
        """
        try:
            answer = await self._client.create(
                RESOURCE_SLICES.at(), one, WireSlice, WriteOptions(dry_run=True)
            )
        except errors.AlreadyExistsError:
            return True  # made meanwhile; the answer to the write is looked at too
        return self._check(one, answer)

    def _check(self, one: Json, answer: WireSlice) -> bool:
        lost = dropped(one["spec"], answer.spec)
        if lost == {"taints"} and self._taints:
            _log.warning("taints_not_kept", gate=GATES["taints"])
            self._taints = False
            self._changed.set()
            return False
        if lost:
            gates = sorted({GATES[name] for name in lost if name in GATES})
            cause = f"the feature gate {', '.join(gates)} is off (on by default from Kubernetes "
            raise UnsupportedError(
                f"the API server drops {', '.join(sorted(lost))} of ResourceSlices"
                + (f": {cause}1.36)" if gates else "")
                + ", so a share would be a whole card"
            )
        return True

    async def _apply(self, one: Json) -> WireSlice:
        address = RESOURCE_SLICES.at(one["metadata"]["name"])
        return await self._client.apply(
            address, one, WireSlice, field_manager=dra.DRIVER, force=True
        )

    async def _delete(self, name: str) -> None:
        try:
            await self._client.delete(RESOURCE_SLICES.at(name))
        except errors.NotFoundError:
            return

    async def _withdraw(self, why: str) -> None:
        """Offer nothing: better no card than whole cards for shares."""
        problem = f"{why}; no card of this node is offered"
        if problem != self.problem:
            _log.error("slices_withdrawn", why=problem)
        self.problem = problem
        self._refused(problem)
        self._sent, self._answers = None, {}
        try:
            listed = await self._client.list(
                RESOURCE_SLICES.at(),
                WireSlice,
                Selection(fields=f"spec.nodeName={self._node_name},spec.driver={dra.DRIVER}"),
            )
            for one in listed.items:
                await self._delete(one.metadata.name)
        except errors.NotFoundError:
            return
        except errors.KubeError as e:
            _log.error("slices_not_withdrawn", error=str(e))
