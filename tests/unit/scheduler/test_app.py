"""The extender as kube-scheduler meets it: over TLS, with a real client and an API server."""

import asyncio
import base64
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme

from gpu_fraction.domain import assignment, keys
from gpu_fraction.domain.placement import Ask
from gpu_fraction.kube.resources import PODS
from gpu_fraction.sandbox.apiserver import ApiServer
from gpu_fraction.sandbox.apiserver.faults import Answer, DelayWatch, Fault, Reset
from gpu_fraction.sandbox.apiserver.kinds import Kind
from gpu_fraction.scheduler.auth import AuthError, Callers, server_tls
from tests.builders import pods
from tests.builders.clusters import HALF, WHOLE, holder
from tests.builders.limits import FixedLimits, limits
from tests.unit.scheduler.conftest import TOKEN, Extend, Running


def add_pod(api: ApiServer, name: str, *asks: Ask, **fields: Any) -> dict[str, Any]:
    """A pod in the API server; what the scheduler would send about it."""
    manifest = pods.asking_manifest(name, *asks, **fields)
    del manifest["metadata"]["resourceVersion"]
    del manifest["metadata"]["uid"]
    api.add({"apiVersion": "v1", "kind": "Pod", **manifest})
    return {"Pod": stored(api, name), "NodeNames": ["a", "b"], "Nodes": None}


def stored(api: ApiServer, name: str) -> Mapping[str, Any]:
    """The pod as the API server has it."""
    found = api.storage.get(Kind(PODS), ("team", name))
    assert found is not None
    return found.body


def bind_args(pod: Mapping[str, Any], node: str) -> dict[str, str]:
    """What the scheduler sends to bind."""
    meta = pod["metadata"]
    return {
        "PodName": meta["name"],
        "PodNamespace": meta["namespace"],
        "PodUID": meta["uid"],
        "Node": node,
    }


async def test_a_pod_is_filtered_scored_and_bound_with_one_api_call(
    api: ApiServer, extender: Running
) -> None:
    """The Binding carries node, cards and uid together."""
    args = add_pod(api, "x", HALF)
    status, answer = await extender.call("filter", args)
    assert (status, answer["NodeNames"], answer["Error"]) == (200, ["a", "b"], "")
    _, scores = await extender.call("prioritize", args)
    assert scores == [{"Host": "a", "Score": 10}, {"Host": "b", "Score": 10}]
    await extender.until(
        lambda: extender.service.state.pod(args["Pod"]["metadata"]["uid"]) is not None
    )
    before = len(api.calls)
    assert await extender.call("bind", bind_args(args["Pod"], "b")) == (200, {"Error": ""})
    assert api.calls[before:] == [("create", "pods")]
    pod = stored(api, "x")
    cards = assignment.parse(pod["metadata"]["annotations"][keys.ASSIGNED])
    assert pod["spec"]["nodeName"] == "b"
    assert cards == {"main": (assignment.CardShare("GPU-b-0", 500, 8192),)}


async def test_a_burst_of_binds_shares_no_card_beyond_its_limit(
    api: ApiServer, extender: Running
) -> None:
    """Eight halves fill four cards; the ninth is told which cards lack what."""
    calls = [add_pod(api, f"p{at}", HALF) for at in range(9)]
    api.faults.add(Fault(DelayWatch(0.05), verb="watch", times=None))
    answers = await asyncio.gather(
        *(
            extender.call("bind", bind_args(call["Pod"], "ab"[at % 2]))
            for at, call in enumerate(calls[:8])
        )
    )
    assert answers == [(200, {"Error": ""})] * 8
    _, answer = await extender.call("bind", bind_args(calls[8]["Pod"], "a"))
    assert answer["Error"] == (
        "node a: cards 0, 1: 0 MiB and 0 milli-cores free, 8192 and 500 needed"
    )
    _, answer = await extender.call("filter", calls[8])
    assert answer["NodeNames"] == []
    assert answer["FailedNodes"]["a"].startswith("a: cards 0, 1: 0 MiB")


async def test_a_killed_extender_comes_back_with_the_same_books(
    api: ApiServer, extend: Extend
) -> None:
    """What it bound is in the pods; nothing else is needed."""
    async with extend() as first:
        await first.service.synced()
        for at, node in enumerate("aab"):
            args = add_pod(api, f"p{at}", WHOLE)
            assert (await first.call("bind", bind_args(args["Pod"], node)))[1] == {"Error": ""}
    async with extend() as second:
        await second.service.synced()
        args = add_pod(api, "last", WHOLE)
        assert (await second.call("filter", args))[1]["NodeNames"] == ["b"]
        assert (await second.call("bind", bind_args(args["Pod"], "b")))[1] == {"Error": ""}
        cards = assignment.parse(stored(api, "last")["metadata"]["annotations"][keys.ASSIGNED])
        assert cards["main"][0].uuid == "GPU-b-1"


async def test_a_lost_answer_keeps_the_cards_until_the_fate_is_known(
    api: ApiServer, extender: Running
) -> None:
    """The Binding took effect; a repeat finds that out and succeeds."""
    args = add_pod(api, "x", WHOLE)
    # The watch must not be what settles it.
    api.faults.add(Fault(DelayWatch(5.0), verb="watch", times=None))
    api.faults.add(Fault(Reset(done=True), verb="create", subresource="binding"))
    status, answer = await extender.call("bind", bind_args(args["Pod"], "a"))
    assert status == 200
    assert answer["Error"].startswith("binding to a: ")
    claim = extender.service.state.claims.get(args["Pod"]["metadata"]["uid"], "a")
    assert claim is not None
    assert (await extender.call("bind", bind_args(args["Pod"], "a")))[1] == {"Error": ""}
    cards = assignment.parse(stored(api, "x")["metadata"]["annotations"][keys.ASSIGNED])
    assert cards == claim.assignment


async def test_a_refused_binding_gives_the_cards_back(api: ApiServer, extender: Running) -> None:
    """A webhook or RBAC said no: the reason goes to the pod's events, the cards are free."""
    args = add_pod(api, "x", WHOLE)
    api.faults.add(Fault(Answer(403, "denied by policy"), verb="create", subresource="binding"))
    _, answer = await extender.call("bind", bind_args(args["Pod"], "a"))
    assert answer == {"Error": "binding to a: denied by policy"}
    assert extender.service.state.cards("a")[0].untouched


async def test_a_pod_of_the_same_name_is_not_bound_in_anothers_place(
    api: ApiServer, extender: Running
) -> None:
    """The uid is a precondition, so that cards never go to a pod that was not judged."""
    old = add_pod(api, "x", WHOLE)["Pod"]
    await extender.until(lambda: extender.service.state.pod(old["metadata"]["uid"]) is not None)
    api.faults.add(Fault(DelayWatch(5.0), verb="watch", times=None))
    api.remove(PODS, "x", "team")
    add_pod(api, "x", WHOLE)
    _, answer = await extender.call("bind", bind_args(old, "a"))
    assert answer["Error"] == "pod x is gone" or "recondition" in answer["Error"]
    assert "nodeName" not in stored(api, "x")["spec"]
    assert extender.service.state.cards("a")[0].untouched


async def test_ended_pods_free_their_cards(api: ApiServer, extender: Running) -> None:
    """Finished or deleted, seen through the watch."""
    state = extender.service.state
    for name in ("x", "y"):
        args = add_pod(api, name, WHOLE)
        await extender.call("bind", bind_args(args["Pod"], "a"))
    assert not any(card.untouched for card in state.cards("a"))
    api.remove(PODS, "x", "team")
    finished = dict(stored(api, "y"))
    api.add({**finished, "kind": "Pod", "apiVersion": "v1", "status": {"phase": "Succeeded"}})
    await extender.until(lambda: all(card.untouched for card in state.cards("a")))


async def test_preempt_answers_in_the_form_it_was_asked(api: ApiServer, extender: Running) -> None:
    """By uid with a node cache, by whole pods without; the answer is by uid."""
    low = add_pod(api, "low", WHOLE)["Pod"]
    state = extender.service.state
    await extender.call("bind", bind_args(low, "a"))
    await extender.call("bind", bind_args(add_pod(api, "next", WHOLE)["Pod"], "a"))
    await extender.until(lambda: len(list(state.pods_on("a"))) == 2 and not state.claims.unseen())
    high = add_pod(api, "high", WHOLE, priority=100)["Pod"]
    victims = {"Pods": [{"UID": low["metadata"]["uid"]}], "NumPDBViolations": 0}
    expected = {"NodeNameToMetaVictims": {"a": victims}}
    by_uid = {"Pod": high, "NodeNameToVictims": None, "NodeNameToMetaVictims": {"a": victims}}
    assert await extender.call("preempt", by_uid) == (200, expected)
    whole = {"Pod": high, "NodeNameToVictims": {"a": {"Pods": [low], "NumPDBViolations": 0}}}
    assert await extender.call("preempt", whole) == (200, expected)


async def test_preempt_answers_the_highest_priority_first(
    api: ApiServer, extender: Running
) -> None:
    """The scheduler compares nodes by the first victim of each."""
    for name, card, priority in (("aaa", 0, 1), ("zzz", 0, 900), ("equal", 1, 1000)):
        share = {card: (500, 8192)}
        extender.service.state.pod_changed(holder(name, "b", share, priority=priority))
    pod = add_pod(api, "x", WHOLE, priority=1000)["Pod"]
    proposal = {"b": {"Pods": [{"UID": "uid-zzz"}], "NumPDBViolations": 0}}
    _, answer = await extender.call("preempt", {"Pod": pod, "NodeNameToMetaVictims": proposal})
    victims = answer["NodeNameToMetaVictims"]["b"]["Pods"]
    assert victims == [{"UID": "uid-zzz"}, {"UID": "uid-aaa"}]


@pytest.mark.parametrize(
    "authorization",
    [f"Bearer {TOKEN}", "Basic " + base64.b64encode(f"scheduler:{TOKEN}".encode()).decode()],
)
async def test_a_token_is_as_good_as_a_certificate(extender: Running, authorization: str) -> None:
    """kube-scheduler sends the one in its urlPrefix as basic authentication."""
    tls, headers = extender.certificates.bare, {"Authorization": authorization}
    status, _ = await extender.call(
        "filter", {"Pod": {}, "NodeNames": []}, tls=tls, headers=headers
    )
    assert status == 200


@pytest.mark.parametrize("verb", ["filter", "prioritize", "bind", "preempt"])
@pytest.mark.parametrize("authorization", ["", "Bearer wrong", "Basic !", f"Token {TOKEN}"])
async def test_strangers_are_turned_away(extender: Running, verb: str, authorization: str) -> None:
    """No proof, a wrong one, or another name in a certificate of the right CA."""
    headers = {"Authorization": authorization} if authorization else None
    for tls in (extender.certificates.bare, extender.certificates.unknown):
        status, _ = await extender.call(verb, {}, tls=tls, headers=headers)
        assert status == 401


async def test_a_certificate_of_another_ca_does_not_get_through_the_handshake(
    extender: Running,
) -> None:
    """Even under the right name."""
    stranger = trustme.CA()
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    stranger.issue_cert("x", common_name="gpu-fraction-scheduler").configure_cert(context)
    with pytest.raises(aiohttp.ClientError):
        await extender.call("filter", {"Pod": {}, "NodeNames": []}, tls=context)


async def test_malformed_calls_are_bad_requests(extender: Running) -> None:
    """With the place in the body; nothing is decided."""
    for verb, body in (
        ("filter", b"{"),
        ("filter", b'{"Pod":{"metadata":{"name":1}},"NodeNames":[]}'),
        ("bind", b'{"PodName":"x"}'),
        ("preempt", b"[]"),
    ):
        status, text = await extender.call(verb, body)
        assert status == 400
        assert text.startswith(f"{verb}: ")


async def test_a_scheduler_without_node_cache_is_told_what_to_set(extender: Running) -> None:
    """It sends whole nodes and would drop them all on an empty answer."""
    _, answer = await extender.call("filter", {"Pod": {}, "Nodes": {"items": []}})
    assert answer["Error"] == "nodeCacheCapable must be true for this extender"


async def test_before_everything_is_loaded_pods_wait_with_a_readable_reason(
    api: ApiServer, extend: Extend
) -> None:
    """An empty view would refuse, or worse, double; the text ends in the pod's events."""
    api.faults.add(Fault(Answer(503), verb="list", resource="pods", times=None))
    async with extend() as running:
        args = add_pod(api, "x", HALF)
        for verb, body in (("filter", args), ("bind", bind_args(args["Pod"], "a"))):
            status, answer = await running.call(verb, body)
            assert status == 200
            assert answer["Error"].startswith("gpu-fraction extender: still loading")
        assert (await running.get("/readyz"))[0] == 503
        assert (await running.get("/livez")) == (200, "ok\n")
        api.faults.clear()
        await running.service.synced()
        assert (await running.get("/readyz")) == (200, "ok\n")
        assert (await running.call("filter", args))[1]["NodeNames"] == ["a", "b"]


async def test_nobody_is_evicted_before_everything_is_loaded(
    api: ApiServer, extend: Extend
) -> None:
    """The answer has no field for an error, so the call fails; nobody is evicted then."""
    api.faults.add(Fault(Answer(503), verb="list", resource="nodes", times=None))
    async with extend() as running:
        pod = add_pod(api, "x", priority=100)["Pod"]
        victims = {"a": {"Pods": [{"UID": "low"}], "NumPDBViolations": 0}}
        args = {"Pod": pod, "NodeNameToMetaVictims": victims}
        status, text = await running.call("preempt", args)
        assert status == 503
        assert text.startswith("gpu-fraction extender: still loading")
        _, metrics = await running.get("/metrics")
        assert 'gpu_fraction_scheduler_request_errors_total{verb="preempt"} 1.0' in metrics
        api.faults.clear()
        await running.service.synced()
        answer = {"NodeNameToMetaVictims": victims}
        assert await running.call("preempt", args) == (200, answer)


async def test_nothing_is_decided_before_the_limits_are_known(
    api: ApiServer, extend: Extend
) -> None:
    """Without them a pod could be given a card that its namespace may not have."""

    class Loading(FixedLimits):
        loaded = False

        def unsynced(self) -> str | None:
            return None if self.loaded else "GPUQuotas are not loaded"

    limits = Loading()
    async with extend(limits) as running:
        await running.service.synced()
        args = add_pod(api, "x", HALF)
        for verb, body in (("filter", args), ("bind", bind_args(args["Pod"], "a"))):
            _, answer = await running.call(verb, body)
            assert "(GPUQuotas are not loaded)" in answer["Error"]
        assert (await running.get("/readyz")) == (503, "GPUQuotas are not loaded\n")
        limits.loaded = True
        assert (await running.get("/readyz")) == (200, "ok\n")


async def test_limits_hold_from_filter_to_bind(api: ApiServer, extend: Extend) -> None:
    """Also where the pod is bound without having been filtered."""
    limited = limits({"T4": {"gpus": 1}})
    async with extend(limited) as running:
        await running.service.synced()
        first, second = (add_pod(api, name, HALF)["Pod"] for name in "xy")
        _, answer = await running.call("bind", bind_args(first, "a"))
        assert answer["Error"] == ""
        args = {"Pod": second, "NodeNames": ["a", "b"], "Nodes": None}
        _, answer = await running.call("filter", args)
        assert answer["NodeNames"] == []
        why = answer["FailedAndUnresolvableNodes"]["b"]
        assert "exceeded GPU quota: budget, requested: T4.gpus=1" in why
        _, answer = await running.call("bind", bind_args(second, "b"))
        assert answer["Error"].startswith("node b: cards 0, 1: exceeded GPU quota: budget")
        assert "nodeName" not in stored(api, "y")["spec"]
        api.remove(PODS, "x", "team")
        await running.until(lambda: not list(running.service.state.claims))
        _, answer = await running.call("bind", bind_args(second, "b"))
        assert answer["Error"] == ""


async def test_metrics_show_outcomes_and_fragmentation(api: ApiServer, extender: Running) -> None:
    """Open to the scraper, like the probes."""
    await extender.call("bind", bind_args(add_pod(api, "x", HALF)["Pod"], "a"))
    await extender.call(
        "bind", bind_args(add_pod(api, "y", Ask("m", memory_mib=99999))["Pod"], "a")
    )
    await extender.until(lambda: not extender.service.state.claims.unseen())
    status, text = await extender.get("/metrics")
    assert status == 200
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    found = {
        name: float(lines[f"gpu_fraction_scheduler_{name}"])
        for name in (
            'bindings_total{outcome="bound"}',
            'bindings_total{outcome="conflict"}',
            'request_seconds_count{verb="bind"}',
            "cards",
            "whole_cards_free",
            "free_share_milli",
            "largest_free_share_milli",
            "overdrawn_cards",
            "assumed_binds",
            "assumed_oldest_seconds",
        )
    }
    assert list(found.values()) == [1, 1, 2, 4, 3, 3500, 1000, 0, 0, 0]


def test_an_extender_that_lets_nobody_in_does_not_start(tmp_path: Path) -> None:
    """Neither names nor a token, or files that are not there."""
    with pytest.raises(AuthError, match="no caller is accepted"):
        Callers()
    with pytest.raises(AuthError, match=r"tls\.crt"):
        server_tls(tmp_path / "tls.crt", tmp_path / "tls.key", None)
    assert "secret" not in repr(Callers(token="secret"))
