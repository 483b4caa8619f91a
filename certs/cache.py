"""Local copies of the CA's Secret and of the configurations with their caBundles.

Each object is watched by its name, so that the right to watch can be limited to that name.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar

from gpu_fraction.certs.bundle import Bundle, Target
from gpu_fraction.certs.injection import addresses, target_of
from gpu_fraction.certs.secret import state_of
from gpu_fraction.certs.settings import Installation
from gpu_fraction.certs.state import CaState
from gpu_fraction.certs.wire import SecretObject, WebhookConfiguration
from gpu_fraction.kube.client import Client
from gpu_fraction.kube.objects import HasMeta
from gpu_fraction.kube.reflector import Reflector
from gpu_fraction.kube.requests import Selection
from gpu_fraction.kube.resources import SECRETS, Address

T = TypeVar("T", bound=HasMeta)


class CertificateCache:
    """Follows the Secret and the configurations."""

    def __init__(
        self, client: Client, installation: Installation, *, with_secret: bool = True
    ) -> None:
        """Prepare; ``run`` does the work.

        Args:
            client: The API server.
            installation: The names.
            with_secret: False where another system provides the certificate.
        """
        self._client = client
        self._installation = installation
        self._reflectors: list[Reflector[Any]] = []
        self._secret: Reflector[SecretObject] | None = None
        if with_secret:
            collection = SECRETS.at(namespace=installation.namespace)
            self._secret = self._follow(collection, installation.secret, SecretObject)
        self._configurations = [
            (kind, self._follow(address.resource.at(), address.name, WebhookConfiguration))
            for kind, address in addresses(installation)
        ]

    def _follow(self, collection: Address, name: str, into: type[T]) -> Reflector[T]:
        selection = Selection(fields=f"metadata.name={name}")
        reflector = Reflector(self._client, collection, into, selection=selection)
        self._reflectors.append(reflector)
        return reflector

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Call a function after each change; it must be quick and must not raise."""
        for reflector in self._reflectors:
            reflector.subscribe(lambda _: listener())

    @property
    def synced(self) -> bool:
        """True once each object has been read or found missing."""
        return all(reflector.synced.is_set() for reflector in self._reflectors)

    async def wait_synced(self) -> None:
        """Return once each object has been read or found missing."""
        for reflector in self._reflectors:
            await reflector.synced.wait()

    async def run(self) -> None:
        """Follow the objects until cancelled."""
        async with asyncio.TaskGroup() as group:
            for number, reflector in enumerate(self._reflectors):
                group.create_task(reflector.run(), name=f"watch-certificates-{number}")

    def state(self, now: datetime) -> CaState | None:
        """The content of the Secret; None where there is none."""
        return state_of(self._found(), now)

    @property
    def secret_uid(self) -> str:
        """The Secret's uid, for Events; empty where there is none."""
        found = self._found()
        return "" if found is None else found.metadata.uid

    def _found(self) -> SecretObject | None:
        if self._secret is None:
            return None
        return self._secret.store.get(self._installation.secret, self._installation.namespace)

    def targets(self) -> list[Target]:
        """The configurations that exist."""
        return [
            target_of(kind, configuration, self._installation)
            for kind, reflector in self._configurations
            for configuration in reflector.store
        ]

    def bundles(self) -> list[Bundle]:
        """Every caBundle of ours."""
        return [bundle for target in self.targets() for bundle in target.bundles]
