"""Questions whose answer is no object: a trial pod, reviews of rights, metrics of the daemons."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from gpu_fraction.dashboard import usage
from gpu_fraction.dashboard.doctor.evidence import Evidence, Outcome, Right, Scrape, Trial
from gpu_fraction.dashboard.doctor.parts import FORBIDDEN, attempt
from gpu_fraction.dashboard.doctor.rights import Needed, needed
from gpu_fraction.dashboard.objects import Pod
from gpu_fraction.dashboard.snapshot import Gap, Part
from gpu_fraction.domain import keys
from gpu_fraction.kube import errors, resources
from gpu_fraction.kube.client import Client
from gpu_fraction.kube.requests import WriteOptions

MOST_SCRAPED: Final = 32
"""Daemons whose metrics are read. Chosen: a fault of all shows in these; one of a single node
shows on its Node as well."""

_CANNOT_CALL: Final = ("failed calling webhook", "failed to call webhook")
"""Source: apiserver pkg/admission/plugin/webhook/errors, ToStatusErr and callHook."""


async def trial(client: Client, namespace: str, timeout_s: float) -> Part[Trial]:
    """Create a pod with a share as a dry run."""
    right = f"create pods in namespace {namespace}"
    address = resources.PODS.at(namespace=namespace)
    try:
        async with asyncio.timeout(timeout_s):
            made = await client.create(
                address, pod(namespace), Pod, WriteOptions(dry_run=True), timeout_s=timeout_s
            )
    except errors.KubeError as e:
        return _answered(e, namespace, right)
    except TimeoutError:
        return Part(gap=Gap("pods", "late", f"{right}: no answer within {timeout_s:g} s"))
    outcome: Outcome = "rewritten" if keys.REQUEST in made.annotations else "unchanged"
    return Part((Trial(namespace, outcome),))


def _answered(error: errors.KubeError, namespace: str, right: str) -> Part[Trial]:
    text = str(error)
    if any(words in text for words in _CANNOT_CALL):
        return Part((Trial(namespace, "failed", text),))
    if isinstance(error, errors.ForbiddenError) and "cannot create resource" in text:
        return Part(gap=Gap("pods", "forbidden", f"{FORBIDDEN}{right}"))
    if isinstance(error, errors.RefusedError | errors.NotFoundError):
        return Part((Trial(namespace, "refused", text),))
    return Part(gap=Gap("pods", "failed", f"{right}: {text}"))


def pod(namespace: str) -> dict[str, Any]:
    """A small GPU pod that every Pod Security level takes."""
    locked = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    small = {"cpu": "1m", "memory": "1Mi"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": "gpu-fraction-doctor-",
            "namespace": namespace,
            "annotations": {keys.FRACTION: "0.01"},
        },
        "spec": {
            "restartPolicy": "Never",
            "containers": [
                {
                    "name": "main",
                    "image": "gpu-fraction-doctor.invalid/dry-run",
                    "securityContext": locked,
                    "resources": {"requests": small, "limits": small},
                }
            ],
        },
    }


async def rights(client: Client, found: Evidence, system: str, timeout_s: float) -> Part[Right]:
    """What the accounts of the running programs may do."""

    async def ask() -> Sequence[Right]:
        return await asyncio.gather(
            *(_review(client, account, of, system, timeout_s) for account, of in _accounts(found))
        )

    return await attempt(
        "create subjectaccessreviews.authorization.k8s.io", "subjectaccessreviews", ask, timeout_s
    )


def _accounts(found: Evidence) -> Iterator[tuple[tuple[str, str], Needed]]:
    for of in needed():
        accounts = {
            (one.metadata.namespace, one.spec.service_account_name or "default")
            for one in found.component(of.component)
        }
        for account in sorted(accounts):
            yield account, of
    if any(group.name == OPENSHIFT for group in found.groups.items):
        use = Needed("node-daemon", "use", OPENSHIFT, "securitycontextconstraints")
        for one in found.component("node-daemon")[:1]:
            yield (one.metadata.namespace, one.spec.service_account_name or "default"), use


OPENSHIFT: Final = "security.openshift.io"
"""API group of OpenShift's SecurityContextConstraints."""


async def _review(
    client: Client, account: tuple[str, str], of: Needed, system: str, timeout_s: float
) -> Right:
    namespace, name = account
    plural, _, sub = of.resource.partition("/")
    asked = {"verb": of.verb, "group": of.group, "resource": plural, "subresource": sub}
    asked |= {"namespace": system} if of.own_namespace else {}
    asked |= {"name": "privileged"} if of.verb == "use" else {}
    review = {
        "apiVersion": resources.ACCESS_REVIEWS.api_version,
        "kind": resources.ACCESS_REVIEWS.kind,
        "spec": {
            "user": f"system:serviceaccount:{namespace}:{name}",
            "groups": [
                "system:authenticated",
                "system:serviceaccounts",
                f"system:serviceaccounts:{namespace}",
            ],
            "resourceAttributes": {key: text for key, text in asked.items() if text},
        },
    }
    answer = await client.create(
        resources.ACCESS_REVIEWS.at(), review, dict[str, Any], timeout_s=timeout_s
    )
    allowed = bool((answer.get("status") or {}).get("allowed"))
    return Right(f"{namespace}/{name}", of.verb, of.qualified, allowed)


async def metrics(client: Client, found: Evidence, timeout_s: float) -> Part[Scrape]:
    """The metrics of the node daemons, through the API server's proxy."""
    fetch = usage.through(client)

    async def one(of: Pod) -> Scrape | None:
        try:
            return Scrape(of.metadata.name, samples(await fetch(of)))
        except (errors.TransientError, errors.NotFoundError, ValueError):
            return None

    async def ask() -> Sequence[Scrape]:
        daemons = usage.daemons(found.own_pods)[:MOST_SCRAPED]
        answers = await asyncio.gather(*map(one, daemons))
        return [answer for answer in answers if answer is not None]

    return await attempt("get pods/proxy", "pods/proxy", ask, timeout_s)


def samples(body: bytes) -> Mapping[str, float]:
    """The sum of each metric's samples in Prometheus' text format.

    Raises:
        ValueError: not that format.
    """
    sums: dict[str, float] = {}
    for name, _, value in usage.samples(body):
        sums[name] = sums.get(name, 0.0) + value
    return sums
