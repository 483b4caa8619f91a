"""What every replica watches: the CA's Secret and the configurations with their caBundles.

Each object is watched by its name, so that the right to do so can be limited to that name.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, TypeVar

from certs.bundle import Bundle
from certs.injection import Carrier, addresses, resource_of, target_of
from certs.installation import Installation
from certs.observation import Target, TargetKind
from certs.secret import state_of
from certs.state import CaState
from certs.wire import ConversionCrd, SecretObject, WebhookConfiguration
from gpu_fraction.kube.client import Client
from gpu_fraction.kube.objects import HasMeta
from gpu_fraction.kube.reflector import Reflector, ReflectorSettings
from gpu_fraction.kube.requests import Selection
from gpu_fraction.kube.resources import SECRETS, Address

__all__ = ["Watched"]

T = TypeVar("T", bound=HasMeta)


class Watched:
    """Local copies of the Secret and of the configurations."""

    def __init__(
        self,
        client: Client,
        installation: Installation,
        *,
        with_secret: bool = True,
        settings: ReflectorSettings | None = None,
    ) -> None:
        """Prepare; ``run`` does the work.

        Args:
            client: The API server.
            installation: The names.
            with_secret: False where the certificate comes from somebody else.
            settings: How to follow.
        """
        self._client = client
        self._installation = installation
        self._settings = settings
        self._listeners: list[Callable[[], None]] = []
        self._followers: list[Reflector[Any]] = []
        self._secret: Reflector[SecretObject] | None = None
        if with_secret:
            collection = SECRETS.at(namespace=installation.namespace)
            self._secret = self._follow(collection, SecretObject, _by_name(installation.secret))
        self._webhooks: list[tuple[TargetKind, Reflector[WebhookConfiguration]]] = []
        self._crds: list[tuple[TargetKind, Reflector[ConversionCrd]]] = []
        for kind, address in addresses(installation):
            collection, selection = resource_of(kind).at(), _by_name(address.name)
            if kind is TargetKind.CRD:
                crd = self._follow(collection, ConversionCrd, selection)
                self._crds.append((kind, crd))
            else:
                webhook = self._follow(collection, WebhookConfiguration, selection)
                self._webhooks.append((kind, webhook))

    def _follow(self, collection: Address, into: type[T], selection: Selection) -> Reflector[T]:
        reflector = Reflector(
            self._client,
            collection,
            into,
            selection=selection,
            settings=self._settings,
        )
        reflector.subscribe(lambda _: self._tell())
        self._followers.append(reflector)
        return reflector

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Call a function after each change; it must be quick and must not raise."""
        self._listeners.append(listener)

    @property
    def synced(self) -> bool:
        """Whether each object, or its absence, has been seen."""
        return all(follower.synced.is_set() for follower in self._followers)

    async def wait_synced(self) -> None:
        """Return once everything has been seen."""
        for follower in self._followers:
            await follower.synced.wait()

    async def run(self) -> None:
        """Follow everything until cancelled."""
        async with asyncio.TaskGroup() as group:
            for number, follower in enumerate(self._followers):
                group.create_task(follower.run(), name=f"watch-certificates-{number}")

    def state(self, now: datetime) -> CaState | None:
        """What the Secret holds, as last seen."""
        return state_of(self._found(), now)

    @property
    def secret_uid(self) -> str:
        """Of the Secret, for Events; empty where there is none."""
        found = self._found()
        return "" if found is None else found.metadata.uid

    def _found(self) -> SecretObject | None:
        if self._secret is None:
            return None
        return self._secret.store.get(self._installation.secret, self._installation.namespace)

    def targets(self) -> list[Target]:
        """The configurations that exist, as last seen."""
        found: list[tuple[TargetKind, Carrier]] = [
            (kind, carrier) for kind, reflector in self._webhooks for carrier in reflector.store
        ]
        found += [(kind, crd) for kind, reflector in self._crds for crd in reflector.store]
        return [target_of(kind, carrier, self._installation) for kind, carrier in found]

    def bundles(self) -> Sequence[Bundle]:
        """Every caBundle of ours, as last seen."""
        return [bundle for target in self.targets() for bundle in target.bundles]

    def _tell(self) -> None:
        for listener in self._listeners:
            listener()


def _by_name(name: str) -> Selection:
    return Selection(fields=f"metadata.name={name}")
