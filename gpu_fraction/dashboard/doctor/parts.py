"""Parts of the evidence: what a request brings, or the reason why it brings nothing."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

from gpu_fraction.dashboard.snapshot import TIMEOUT_S, Gap, Part, Why
from gpu_fraction.kube import errors
from gpu_fraction.kube.client import Client
from gpu_fraction.kube.requests import EVERYTHING, Selection
from gpu_fraction.kube.resources import Address

T = TypeVar("T")

FORBIDDEN: Final = "not permitted: "
"""Begins the reason where a right is missing; verb and resource follow."""


async def listed(
    client: Client,
    address: Address,
    into: type[T],
    selection: Selection = EVERYTHING,
    timeout_s: float = TIMEOUT_S,
) -> Part[T]:
    """All objects at an address, or the reason why not."""
    bad: list[str] = []

    async def ask() -> Sequence[T]:
        found = await client.list(
            address,
            into,
            selection,
            on_malformed=lambda of, e: bad.append(f"{of.metadata.name}: {e}"),
            timeout_s=timeout_s,
        )
        return found.items

    where = f" in namespace {address.namespace}" if address.namespace else ""
    part = await attempt(
        f"list {address.qualified}{where}", address.resource.plural, ask, timeout_s
    )
    return Part(part.items, part.gap, tuple(bad))


async def attempt(
    right: str, what: str, ask: Callable[[], Awaitable[Sequence[T]]], timeout_s: float
) -> Part[T]:
    """What a request brings, or the reason why it brings nothing.

    Args:
        right: Verb and resource, for the reason.
        what: The resource in plural.
        ask: The request; its KubeErrors become the reason.
        timeout_s: Seconds for all of it.
    """
    why: Why
    try:
        async with asyncio.timeout(timeout_s):
            return Part(tuple(await ask()))
    except errors.NotFoundError:
        return Part(gap=Gap(what, "absent", f"the server has no {what}"))
    except errors.ForbiddenError:
        why, text = "forbidden", f"{FORBIDDEN}{right}"
    except (TimeoutError, errors.DeadlineError):
        why, text = "late", f"{right}: no answer within {timeout_s:g} s"
    except errors.KubeError as e:
        why, text = "failed", f"{right}: {e}"
    return Part(gap=Gap(what, why, text))


def together(parts: Sequence[Part[T]]) -> Part[T]:
    """All items; what is missing of one is missing of all, because an absent item is a finding."""
    gap = next((p.gap for p in parts if p.gap and p.gap.why != "absent"), None)
    return Part(tuple(item for part in parts for item in part.items), gap)
