"""Reads the CA's Secret, and writes it only if it has not changed since."""

import base64
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from gpu_fraction.certs import state as stored
from gpu_fraction.certs.settings import FIELD_MANAGER, Installation
from gpu_fraction.certs.state import CaState
from gpu_fraction.certs.wire import SecretObject
from gpu_fraction.kube import errors
from gpu_fraction.kube.client import Client
from gpu_fraction.kube.requests import PatchKind, WriteOptions
from gpu_fraction.kube.resources import SECRETS

_OPTIONS: Final = WriteOptions(field_manager=FIELD_MANAGER)


@dataclass(frozen=True, slots=True)
class Held:
    """A Secret as it was read.

    Attributes:
        state: Its content; None where there is no Secret.
        resource_version: The version that was read; empty where there is none.
        uid: The Secret's uid, for Events; empty where there is none.
    """

    state: CaState | None = None
    resource_version: str = ""
    uid: str = ""


def state_of(secret: SecretObject | None, now: datetime) -> CaState | None:
    """The content of a Secret; None where there is none."""
    if secret is None:
        return None
    return stored.read_state(secret.data or {}, secret.metadata.annotations or {}, now)


class SecretStore:
    """The Secret of one installation, through the API."""

    def __init__(self, client: Client, installation: Installation) -> None:
        self._client = client
        self._installation = installation
        self._address = SECRETS.at(installation.secret, namespace=installation.namespace)

    async def read(self, now: datetime) -> Held:
        """The Secret, read from the API server.

        Raises:
            KubeError: it could not be read.
        """
        try:
            found = await self._client.get(self._address, SecretObject)
        except errors.NotFoundError:
            return Held()
        return Held(state_of(found, now), found.metadata.resource_version, found.metadata.uid)

    async def write(self, held: Held, state: CaState) -> Held:
        """Replace the state that was read.

        Only our own keys and annotations change. The version in a merge patch is a precondition.

        Raises:
            ConflictError, AlreadyExistsError, NotFoundError: another process has written first.
            KubeError: it could not be written.
        """
        annotations = stored.annotations_of(state)
        data = {key: base64.b64encode(v).decode() for key, v in stored.data_of(state).items()}
        if held.resource_version:
            change = {
                "metadata": {
                    "resourceVersion": held.resource_version,
                    "annotations": dict.fromkeys(stored.ANNOTATIONS) | annotations,
                },
                "data": dict.fromkeys(stored.DATA_KEYS) | data,
            }
            written = await self._patch(change)
        else:
            written = await self._client.create(
                SECRETS.at(namespace=self._installation.namespace),
                self._manifest(data, annotations),
                SecretObject,
                _OPTIONS,
            )
        return Held(state, written.metadata.resource_version, written.metadata.uid)

    async def request(self, token: str, *, ca: bool) -> None:
        """Request new certificates from the lease holder or the replicas.

        Args:
            token: A text that was not used before.
            ca: True for a new CA, False for new leaves of the current one.

        Raises:
            NotFoundError: there is no Secret yet.
            KubeError: it could not be written.
        """
        annotation = stored.ROTATE_CA if ca else stored.ROTATE_LEAF
        await self._patch({"metadata": {"annotations": {annotation: token}}})

    async def _patch(self, change: dict[str, Any]) -> SecretObject:
        return await self._client.patch(
            self._address, PatchKind.MERGE, change, SecretObject, _OPTIONS
        )

    def _manifest(self, data: dict[str, str], annotations: dict[str, str]) -> dict[str, Any]:
        return {
            "apiVersion": SECRETS.api_version,
            "kind": SECRETS.kind,
            "metadata": {
                "name": self._installation.secret,
                "namespace": self._installation.namespace,
                "labels": {"app.kubernetes.io/managed-by": "gpu-fraction"},
                "annotations": annotations,
            },
            "type": "Opaque",
            "data": data,
        }
