"""Checks that the API server has a supported version."""

import asyncio
import random
from typing import Final

import structlog

from gpu_fraction.kube import errors
from gpu_fraction.kube.backoff import Backoff
from gpu_fraction.kube.client import Client
from gpu_fraction.settings.option import SettingsError

OLDEST: Final = (1, 34)
NEWEST: Final = (1, 37)
"""Chosen: the versions that the tests run against (docs/testing.md)."""

TIMEOUT_S: Final = 10.0
"""Seconds for one request with retries: chosen, the server answers ``/version`` from memory."""

_BACKOFF: Final = Backoff(initial_s=1.0)

_log = structlog.get_logger()


class UnsupportedServerError(SettingsError):
    """The API server is too old."""


async def unsupported(client: Client) -> str:
    """Why the server may not work; empty where it is supported.

    Raises:
        UnsupportedServerError: it is too old.
        errors.KubeError: it gave no answer, or refused these credentials.
    """
    supported = f"gpu-fraction runs on Kubernetes {_text(OLDEST)} to {_text(NEWEST)}"
    try:
        found = await client.server_version(timeout_s=TIMEOUT_S)
    except (errors.ForbiddenError, errors.NotFoundError, errors.MalformedAnswerError) as e:
        return f"the API server does not report its version ({e}); {supported}"
    if found < OLDEST:
        raise UnsupportedServerError(
            [f"the API server is Kubernetes {_text(found)}; {supported}: upgrade the cluster"]
        )
    if found > NEWEST:
        return f"the API server is Kubernetes {_text(found)}, which was not tested; {supported}"
    return ""


async def check(client: Client) -> None:
    """Wait for the server and log whether its version is supported.

    Raises:
        UnsupportedServerError: it is too old.
    """
    for wait_s in _BACKOFF.waits_s(random.SystemRandom()):
        try:
            why = await unsupported(client)
        except errors.KubeError as e:
            _log.info("server_version_not_read", error=str(e))
            await asyncio.sleep(wait_s)
            continue
        if why:
            _log.warning("server_version_unsupported", why=why)
        else:
            _log.info("server_version_supported")
        return


def _text(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
