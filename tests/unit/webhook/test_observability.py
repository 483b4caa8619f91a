"""What the admission server shows of its work: health, metrics and logs."""

import structlog
from prometheus_client import CollectorRegistry

from gpu_fraction.webhook.endpoints import NotReady
from gpu_fraction.webhook.review import AdmissionRequest, Answer
from tests.builders.pods import Raw, container, env, pod
from tests.support.reviews import body, changed, review
from tests.unit.webhook.calls import QUARTER, post
from tests.unit.webhook.conftest import Launcher, decided


async def test_health(launch: Launcher) -> None:
    """Alive whatever is missing; ready when every check passes, else the reasons."""
    reasons: list[str | None] = ["certificate missing", None, "cache not synced"]
    checks = tuple((lambda i=i: reasons[i]) for i in range(3))
    async with launch(checks=checks) as running:
        async with running.client.get("/livez") as answer:
            assert (answer.status, await answer.text()) == (200, "ok\n")
        async with running.client.get("/readyz") as answer:
            assert answer.status == 503
            assert await answer.text() == "certificate missing\ncache not synced\n"
        reasons[:] = [None, None, None]
        async with running.client.get("/readyz") as answer:
            assert (answer.status, await answer.text()) == (200, "ok\n")


def counted(registry: CollectorRegistry) -> dict[tuple[str, str, str], float]:
    """Reviews by path, operation and decision."""
    return {
        (s.labels["path"], s.labels["operation"], s.labels["decision"]): s.value
        for family in registry.collect()
        for s in family.samples
        if s.name == "gpu_fraction_admission_reviews_total"
    }


async def test_metrics_count_what_was_decided(launch: Launcher) -> None:
    """By path, operation and decision."""
    async with launch() as running:
        calls = [
            ("/mutate", body(review(pod(QUARTER)))),
            ("/mutate", body(review(pod()))),
            ("/mutate", body(review(pod({"gpu-fraction": "0"})))),
            ("/mutate", b"{"),
            ("/mutate", b" " * 10),
            ("/validate", body(review(pod()))),
            ("/validate", body(review(pod(QUARTER), pod(), operation="UPDATE"))),
            ("/validate", body(review(None, pod(), operation="DELETE"))),
        ]
        for path, data in calls:
            await post(running.client, data, path)
        assert counted(running.registry) == {
            ("mutate", "CREATE", "patched"): 1,
            ("mutate", "CREATE", "kept"): 1,
            ("mutate", "CREATE", "refused"): 1,
            ("mutate", "unknown", "bad_call"): 2,
            ("validate", "CREATE", "allowed"): 1,
            ("validate", "UPDATE", "refused"): 1,
            ("validate", "DELETE", "allowed"): 1,
        }
        async with running.client.get("/metrics") as answer:
            assert answer.status == 200
            assert answer.content_type == "text/plain"
            text = await answer.text()
    assert 'gpu_fraction_admission_seconds_count{path="mutate"} 5.0' in text


async def test_no_label_of_a_metric_comes_from_a_caller(launch: Launcher) -> None:
    """Else anybody could fill the memory with series."""
    async with launch() as running:
        for i in range(20):
            raw = changed(
                review(pod({"gpu-fraction": f"0.{i}"}), operation=f"OP-{i}"),
                uid=f"u-{i}",
                namespace=f"n-{i}",
                name=f"p-{i}",
                subResource=f"s-{i}",
            )
            await post(running.client, body(raw), f"/mutate?timeout={i}s")
            await post(running.client, body(raw), f"/mutate-{i}")
        assert set(counted(running.registry)) == {("mutate", "unknown", "allowed")}


# Logs.

SECRET = "canary-7f3a"


def secretive(**annotations: str) -> Raw:
    """A pod with a secret wherever its author might keep one."""
    return pod(
        {**annotations, "secret": SECRET, "kubectl.kubernetes.io/last-applied": SECRET},
        container(
            "main",
            env=[*env(("TOKEN", SECRET)), {"name": "REF", "valueFrom": {SECRET: SECRET}}],
            command=["run", SECRET],
            args=[SECRET],
        ),
        container("side", {"cpu": "1"}, env=env(("NVIDIA_VISIBLE_DEVICES", SECRET))),
        imagePullSecrets=[{"name": SECRET}],
        volumes=[{"name": "v", "csi": {"token": SECRET}}],
    )


async def test_the_log_never_holds_the_object(launch: Launcher) -> None:
    """Whatever the verdict: patched, kept, refused, bad call, not ready, bug."""
    errors: dict[str, Exception] = {"late": NotReady("not yet"), "bug": RuntimeError("oh")}

    async def decide(request: AdmissionRequest) -> Answer:
        if (error := errors.get(request.uid)) is not None:
            raise error
        return await decided(request)

    good = secretive(**QUARTER)
    good["spec"]["containers"].pop()
    bad = secretive(**QUARTER)
    bad["spec"]["containers"][0]["env"][0]["value"] = {"secret": SECRET}
    keyed = secretive()
    keyed["metadata"]["annotations"][SECRET] = 7
    reviews = [
        review(good),
        review(secretive()),
        review(secretive(**{"gpu-fraction": "9.5"})),
        review(bad),
        review(keyed),
        review(SECRET),  # type: ignore[arg-type]
        changed(review(good), uid="late"),
        changed(review(good), uid="bug"),
        {**review(good), "kind": "Secret"},
    ]
    with structlog.testing.capture_logs() as lines:
        async with launch(mutate=decide) as running:
            statuses = [(await post(running.client, body(raw)))[0] for raw in reviews]
            for raw in reviews[:3]:
                update = changed(raw, operation="UPDATE", oldObject=pod())
                await post(running.client, body(update), "/validate")
    assert statuses == [200, 200, 200, 400, 400, 400, 503, 500, 400]
    assert len(lines) > len(reviews)
    assert SECRET not in repr(lines)


async def test_no_verdict_makes_a_long_line(launch: Launcher) -> None:
    """Names are judged after us, and messages may hold some; a log is everybody's."""
    raw = changed(review(pod()), name="n" * 100_000)
    verdict = Answer(allowed=False, message="m" * 100_000)
    with structlog.testing.capture_logs() as lines:
        async with launch(mutate=lambda _: verdict) as running:
            await post(running.client, body(raw))
    assert len(repr(lines)) < 4000


async def test_a_verdict_is_logged_in_one_line(launch: Launcher) -> None:
    """Who, what, how long; never the object."""
    raw = changed(review(pod({"gpu-fraction": "9.5"})), dryRun=True)
    with structlog.testing.capture_logs() as lines:
        async with launch() as running:
            await post(running.client, body(raw))
    (line,) = [line for line in lines if line["event"] == "admission.reviewed"]
    assert isinstance(line.pop("ms"), float)
    assert line.pop("reason").startswith("metadata.annotations[gpu-fraction]: ")
    assert line == {
        "event": "admission.reviewed",
        "log_level": "info",
        "path": "mutate",
        "uid": "u-1",
        "namespace": "team-a",
        "name": "p",
        "operation": "CREATE",
        "subresource": None,
        "dry_run": True,
        "decision": "refused",
        "backend": "native",
    }
