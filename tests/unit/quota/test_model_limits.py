"""The limits on GPU models that the scheduler's extender is given."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from structlog.testing import capture_logs

from gpu_fraction.kube.access import Access
from gpu_fraction.kube.backoff import Backoff
from gpu_fraction.kube.client import connect
from gpu_fraction.kube.reflector import ReflectorSettings
from gpu_fraction.kube.resources import GPU_QUOTAS
from gpu_fraction.kube.retry import RetryPolicy
from gpu_fraction.quota.model_limits import ModelLimitsWatch
from gpu_fraction.quota.wire import API_VERSION, KIND
from gpu_fraction.sandbox.apiserver import ApiServer
from gpu_fraction.sandbox.apiserver.faults import Answer, DropWatch, Fault
from gpu_fraction.sandbox.apiserver.kinds import from_crd
from tests.builders.limits import limits
from tests.support.access import fixed

CRD = dict(YAML(typ="safe").load(Path(__file__).parents[3] / "deploy" / "crd" / "gpuquotas.yaml"))


@asynccontextmanager
async def watching(
    server: ApiServer, following: ReflectorSettings | None = None
) -> AsyncIterator[ModelLimitsWatch]:
    """The limits of that server, looked after in quick succession."""
    retry = RetryPolicy(Backoff(initial_s=0.01, cap_s=0.05), attempt_timeout_s=1.0)
    async with connect(fixed(Access(server=server.url)), component="test", retry=retry) as client:
        watch = ModelLimitsWatch(
            client, certain_after_s=0.2, look_again_s=0.05, following=following
        )
        task = asyncio.create_task(watch.run(), name="limits")
        try:
            yield watch
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def until(met: Callable[[], bool]) -> None:
    """Wait for the watch."""
    async with asyncio.timeout(5):
        while not met():
            await asyncio.sleep(0.005)


def quota(name: str, models: dict[str, Any], **spec: Any) -> dict[str, Any]:
    """A GPUQuota as its owner writes it."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": name, "namespace": "team"},
        "spec": {"hard": {"gpus": 9, "models": models}, "enforcement": "Deny", **spec},
    }


def shown(watch: ModelLimitsWatch) -> list[tuple[str, str, dict[str, int]]]:
    """Quota, model and limits of the namespace."""
    return [(each.quota, each.model, dict(each.hard)) for each in watch.limits("team")]


async def test_limits_follow_the_quotas(server: ApiServer) -> None:
    """They come with a quota, change with it, and go with it."""
    server.register(from_crd(CRD))
    server.add(quota("b", {"T4": {"gpus": 2, "memory": "16Gi"}, "A100": {"cores": "500m"}}))
    async with watching(server) as watch:
        assert watch.unsynced() == "GPUQuotas are being read"
        await until(lambda: watch.unsynced() is None)
        first = [("b", "A100", {"cores": 500}), ("b", "T4", {"gpus": 2, "memory": 16384})]
        assert shown(watch) == first
        server.add(quota("a", {"T4": {"gpus": 1}}))
        await until(lambda: shown(watch) == [("a", "T4", {"gpus": 1}), *first])
        server.add(quota("a", {"T4": {"gpus": 3}}))
        await until(lambda: shown(watch) == [("a", "T4", {"gpus": 3}), *first])
        server.remove(GPU_QUOTAS, "b", "team")
        await until(lambda: shown(watch) == [("a", "T4", {"gpus": 3})])
        server.add(quota("a", {}))
        await until(lambda: not shown(watch))
        assert not watch.limits("elsewhere")


async def test_only_quotas_that_deny_and_can_be_read_limit(server: ApiServer) -> None:
    """One that warns keeps nobody from a card, nor does one that is invalid."""
    server.register(from_crd(CRD))
    server.add(
        quota("warns", {"T4": {"gpus": 1}}, enforcement="Warn"),
        quota("audits", {"T4": {"gpus": 1}}, enforcement="Audit"),
        quota("unreadable", {"T4": {"gpus": 1}, "A100": {"memory": "lots"}}),
        quota("denies", {"T4": {"gpus": 1}}),
        quota("turning", {"T4": {"gpus": 1}}),
    )
    async with watching(server) as watch:
        await until(lambda: watch.unsynced() is None)
        assert [found[0] for found in shown(watch)] == ["denies", "turning"]
        server.add(quota("turning", {"T4": {"gpus": 1}}, enforcement="Warn"))
        await until(lambda: [found[0] for found in shown(watch)] == ["denies"])


async def test_a_cluster_without_the_resource_has_no_limits(server: ApiServer) -> None:
    """It is said once; quotas are kept to as soon as there can be some."""
    with capture_logs() as logs:
        async with watching(server) as watch:
            assert watch.unsynced() is not None, "one 404 proves nothing"
            await until(lambda: watch.unsynced() is None)
            assert not watch.limits("team")
            await asyncio.sleep(0.2)
            server.register(from_crd(CRD))
            server.add(quota("a", {"T4": {"gpus": 1}}))
            await until(lambda: shown(watch) == [("a", "T4", {"gpus": 1})])
            assert watch.unsynced() is None
    said = [entry for entry in logs if entry["event"] == "quota.resource_not_served"]
    assert len(said) == 1


async def test_an_api_server_that_is_starting_lifts_no_limit(server: ApiServer) -> None:
    """It answers 404 until it has read the definitions of custom resources."""
    server.register(from_crd(CRD))
    server.add(quota("a", {"T4": {"gpus": 1}}))
    plural = GPU_QUOTAS.qualified
    server.faults.add(Fault(DropWatch(1), verb="watch", resource=plural))
    async with watching(server) as watch:
        await until(lambda: len(shown(watch)) == 1)
        server.faults.add(Fault(Answer(404), verb="watch", resource=plural))
        server.add(quota("b", {"T4": {"gpus": 2}}))
        await until(lambda: len(shown(watch)) == 2)
        server.add(quota("c", {"T4": {"gpus": 2}}))
        await until(lambda: len(shown(watch)) == 3)
        await asyncio.sleep(0.3)
        assert len(shown(watch)) == 3
        assert watch.unsynced() is None


async def test_limits_end_when_the_resource_is_removed(server: ApiServer) -> None:
    """No quota is left then, whether or not the watch told of each."""
    server.register(from_crd(CRD))
    server.add(quota("a", {"T4": {"gpus": 1}}))
    plural = GPU_QUOTAS.qualified
    server.faults.add(Fault(DropWatch(1), verb="watch", resource=plural))
    async with watching(server) as watch:
        await until(lambda: len(shown(watch)) == 1)
        for verb in ("watch", "list"):
            server.faults.add(Fault(Answer(404), verb=verb, resource=plural, times=None))
        server.add(quota("b", {"T4": {"gpus": 2}}))
        await until(lambda: not shown(watch))
        assert watch.unsynced() is None
        server.faults.clear()
        await until(lambda: len(shown(watch)) == 2)


async def test_without_the_right_to_read_quotas_nothing_is_decided(server: ApiServer) -> None:
    """An extender that is newer than its role is not ready, rather than generous."""
    server.register(from_crd(CRD))
    server.faults.add(Fault(Answer(403), resource=GPU_QUOTAS.qualified, times=None))
    async with watching(server) as watch:
        await until(lambda: len(server.calls) >= 2)
        assert watch.unsynced() == "GPUQuotas are being read"
        server.faults.clear()
        await until(lambda: watch.unsynced() is None)


def test_a_limit_refuses_in_the_words_of_admission() -> None:
    """Amounts as the quota's author would write them."""
    (limit,) = limits({"A100": {"cores": "2", "memory": "80Gi", "gpus": 2}}).limits("team")
    wanted, used = {"cores": 1500, "memory": 40960}, {"cores": 1000, "memory": 61440}
    assert limit.refusal(wanted, used, {"cores": 0, "memory": 0}) == (
        "exceeded GPU quota: budget, requested: A100.cores=1500m,A100.memory=40Gi, "
        "used: A100.cores=1,A100.memory=60Gi, limited: A100.cores=2,A100.memory=80Gi"
    )
    assert limit.refusal({"gpus": 1}, {"gpus": 1}, {"gpus": 1}) == (
        "exceeded GPU quota: budget, requested: A100.gpus=1, used: A100.gpus=1, "
        "kept for waiting pods: A100.gpus=1, limited: A100.gpus=2"
    )


def test_a_limit_counts_the_classes_of_its_quota() -> None:
    """An empty class is none."""
    expression = {"scopeName": "PriorityClass", "operator": "DoesNotExist"}
    scope = {"matchExpressions": [expression]}
    (limit,) = limits({"T4": {"gpus": 1}}, scopeSelector=scope).limits("team")
    assert limit.counts("")
    assert not limit.counts("batch")


async def test_limits_that_may_have_changed_unheard_are_not_trusted(server: ApiServer) -> None:
    """While the watch is dead nobody knows of new quotas, so no cards are chosen."""
    server.register(from_crd(CRD))
    settings = ReflectorSettings(
        backoff=Backoff(initial_s=0.01, cap_s=0.05), silence_s=0.1, stale_s=0.3
    )
    async with watching(server, settings) as watch:
        await until(lambda: watch.unsynced() is None)
        for verb in ("watch", "list"):
            server.faults.add(Fault(Answer(503), verb=verb, times=None))
        await until(lambda: watch.unsynced() is not None)
        server.faults.clear()
        await until(lambda: watch.unsynced() is None)
