"""The connection of commands that ask a cluster on behalf of a person."""

import argparse
import asyncio
import os
import random
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gpu_fraction.kube.access import (
    Access,
    AccessError,
    AccessSource,
    Overrides,
    in_cluster,
    kubeconfig,
)
from gpu_fraction.kube.client import Client, connect
from gpu_fraction.kube.errors import ForbiddenError, KubeError, TransportError, UnauthorizedError
from gpu_fraction.kube.requests import Request
from gpu_fraction.kube.retry import RetryPolicy
from gpu_fraction.settings.option import SettingsError

COULD_NOT_ASK: Final = 2
"""Exit code where there is no answer; 1 is for an answer that is "no" (docs/status.md)."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A connection for one command.

    Attributes:
        client: The connection.
        namespace: That of ``--namespace``, else of the context, else ``default``.
        named: Whether ``--namespace`` was given.
        everywhere: Whether ``--all-namespaces`` was given.
        timeout_s: Seconds for a request.
    """

    client: Client
    namespace: str
    named: bool
    everywhere: bool
    timeout_s: float


class Impatient(RetryPolicy):
    """Tries again where the server says so, but not where nothing listens: a person waits."""

    def wait_s(
        self, request: Request, error: KubeError, failures: int, rng: random.Random
    ) -> float | None:
        """As ``RetryPolicy``; None after the first failure to connect."""
        if isinstance(error, TransportError) and not error.started:
            return None
        return super().wait_s(request, error, failures, rng)


def checked_name(what: str, text: str) -> str:
    """A name that can stand in a path.

    Source: apimachinery pkg/api/validation/path, IsValidPathSegmentName.

    Args:
        what: What it names, for the message.
        text: The name.

    Raises:
        SettingsError: it cannot.
    """
    if text in {".", ".."} or "/" in text or "%" in text:
        told = f"{what} {text!r} is not a name; allowed: no '/' and no '%', and not '.' or '..'"
        raise SettingsError([told])
    return text


def source(args: argparse.Namespace, environ: Mapping[str, str]) -> AccessSource:
    """Where the flags point: the kubeconfig, else the service account of a pod.

    Raises:
        SettingsError: the flags contradict each other, or nothing names a cluster.
    """
    overrides = Overrides(
        context=args.context,
        cluster=args.cluster,
        user=args.user,
        server=args.server,
        token=args.token,
        act_as=getattr(args, "as"),
        groups=tuple(args.as_group),
    )
    if overrides.groups and not overrides.act_as:
        raise SettingsError(["--as-group needs --as: groups belong to an impersonated user"])
    files = args.kubeconfig or environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")
    there = any(Path(one).expanduser().exists() for one in files.split(os.pathsep) if one)
    if args.kubeconfig or there or overrides.server:
        return kubeconfig(files, overrides=overrides)
    if environ.get("KUBERNETES_SERVICE_HOST") and overrides == Overrides():
        return in_cluster(environ)
    raise SettingsError(
        [f"no cluster is named: {files} does not exist; give --kubeconfig, or set KUBECONFIG"]
    )


@asynccontextmanager
async def connected(
    args: argparse.Namespace, environ: Mapping[str, str], *, component: str
) -> AsyncIterator[Asked]:
    """Connect as the flags say.

    Args:
        args: With the flags of ``kubectl_flags``.
        environ: The environment.
        component: Goes into the user agent.

    Raises:
        SettingsError: as ``source``.
        AccessError: the kubeconfig or a credential plugin fails.
    """
    where = source(args, environ)
    first: list[Access] = [await where.find()]
    found = first[0]

    async def find() -> Access:
        # A credential plugin may ask a person, so its first answer is used.
        return first.pop() if first else await where.find()

    reused = AccessSource(find, where.max_age_s)
    async with connect(reused, component=component, retry=Impatient()) as client:
        yield Asked(
            client=client,
            namespace=checked_name("namespace", args.namespace or found.namespace or "default"),
            named=bool(args.namespace),
            everywhere=getattr(args, "all_namespaces", False),
            timeout_s=args.request_timeout,
        )


def answer(
    args: argparse.Namespace,
    environ: Mapping[str, str],
    command: str,
    work: Callable[[Asked], Awaitable[int]],
) -> int:
    """Run a command's work on a connection; its exit code, or 2 with a message.

    Args:
        args: With the flags of ``kubectl_flags``.
        environ: The environment.
        command: Its name, for messages and the user agent.
        work: The work; its exit code.
    """

    async def run() -> int:
        async with connected(args, environ, component=command) as asked:
            return await work(asked)

    try:
        return asyncio.run(run())
    except (AccessError, KubeError) as e:
        sys.stderr.write(f"gpu-fraction {command}: {told(e)}\n")
        return COULD_NOT_ASK


def told(error: Exception) -> str:
    """An error in a line on what happened and one on what to do."""
    remedy = ""
    if isinstance(error, UnauthorizedError):
        remedy = "log in again, or name other credentials with --context, --user or --token"
    elif isinstance(error, ForbiddenError):
        remedy = "ask an administrator for the right, or name a namespace with -n"
    elif isinstance(error, TransportError):
        remedy = "check the address in the kubeconfig, and the network"
    return f"{error}\n{remedy}".rstrip()
