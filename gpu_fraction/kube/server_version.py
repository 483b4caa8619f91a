"""Which API servers are supported, and what becomes of the others."""

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
"""Of one reading with its retries: chosen, ``/version`` is answered out of memory."""

_BACKOFF: Final = Backoff(initial_s=1.0)

_log = structlog.get_logger()


class UnsupportedServerError(SettingsError):
    """The cluster that the settings name has a server that is too old."""


async def doubt(client: Client) -> str:
    """Why the server may not do; empty where it is supported.

    Raises:
        UnsupportedServerError: it is too old.
        errors.KubeError: it gave no answer, or not to these credentials.
    """
    supported = f"gpu-fraction runs on Kubernetes {_text(OLDEST)} to {_text(NEWEST)}"
    try:
        found = await client.server_version(timeout_s=TIMEOUT_S)
    except (errors.ForbiddenError, errors.NotFoundError, errors.MalformedAnswerError) as e:
        return f"the API server does not tell its version ({e}); {supported}"
    if found < OLDEST:
        raise UnsupportedServerError(
            [f"the API server is Kubernetes {_text(found)}; {supported}: upgrade the cluster"]
        )
    if found > NEWEST:
        return f"the API server is Kubernetes {_text(found)}, which was not tested; {supported}"
    return ""


async def check(client: Client) -> None:
    """Log the server's doubt as soon as the server answers, however long that takes.

    Raises:
        UnsupportedServerError: it is too old.
    """
    for wait_s in _BACKOFF.waits_s(random.SystemRandom()):
        try:
            why = await doubt(client)
        except errors.KubeError as e:
            _log.info("server_version_not_read", error=str(e))
            await asyncio.sleep(wait_s)
            continue
        if why:
            _log.warning("server_version_doubtful", why=why)
        else:
            _log.info("server_version_supported")
        return


def _text(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
