"""The admission server over real TLS: what is answered to calls good and bad."""

import asyncio
import gzip
import io
from collections.abc import AsyncIterator, Awaitable

import aiohttp
import pytest
import structlog

from gpu_fraction.webhook.endpoints import MAX_BODY_BYTES, NotReady
from gpu_fraction.webhook.review import AdmissionRequest, Answer, BadReview
from tests.builders.pods import pod
from tests.support.reviews import RECORDED, body, changed, patch_of, recorded, review
from tests.support.tls import Tls
from tests.unit.webhook.calls import JSON, QUARTER, post
from tests.unit.webhook.conftest import Launcher, decided


def sized(size: int) -> bytes:
    """A review of a GPU pod, padded to that many bytes."""
    raw = review(pod({**QUARTER, "padding": ""}))
    raw["request"]["object"]["metadata"]["annotations"]["padding"] = "x" * (size - len(body(raw)))
    assert len(body(raw)) == size
    return body(raw)


async def test_every_recorded_review_is_answered(launch: Launcher) -> None:
    """As the API server posted it, on its own path, over one kept-alive connection."""
    async with launch() as running:
        for name in RECORDED:
            raw = recorded(name)
            path = "/mutate" if name.endswith("-mutating") else "/validate"
            status, response = await post(running.client, body(raw), f"{path}?timeout=10s")
            assert status == 200, name
            assert response["uid"] == raw["request"]["uid"]
            if path == "/mutate":
                assert response["allowed"] is True
            else:
                patch_of(response)


async def test_a_refusal_is_a_verdict_not_an_error(launch: Launcher) -> None:
    """HTTP 200 with ``allowed: false`` and 403 inside."""
    async with launch() as running:
        status, response = await post(running.client, body(review(pod({"gpu-fraction": "9.5"}))))
    assert (status, response["allowed"]) == (200, False)
    assert response["status"]["code"] == 403
    assert response["status"]["message"].startswith("metadata.annotations[gpu-fraction]: ")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"not json",
        b"null",
        b"\xff\xfe",
        b'{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1"}',
        body(changed(review(None))),
        body(review({"spec": {"containers": {}}})),
        body(review(pod(), resource="nodes")),
    ],
)
@pytest.mark.parametrize("path", ["/mutate", "/validate"])
async def test_a_bad_call_is_400(launch: Launcher, path: str, data: bytes) -> None:
    """With the reason; failurePolicy decides what becomes of the request."""
    async with launch() as running:
        status, told = await post(running.client, data, path)
    assert status == 400
    assert told["text"].strip()


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json", 200),
        ("application/json; charset=utf-8", 200),
        ("Application/JSON", 200),
        ("text/plain", 415),
        ("application/yaml", 415),
        ("application/vnd.kubernetes.protobuf", 415),
        ("application/jsonx", 415),
        ("", 415),
        ("nonsense", 415),
    ],
)
async def test_only_json_is_taken(launch: Launcher, content_type: str, status: int) -> None:
    """Anything else is not for us to guess at."""
    async with launch() as running:
        found, _ = await post(
            running.client, body(review(pod())), **{"Content-Type": content_type}
        )
    assert found == status


@pytest.mark.parametrize(
    ("size", "status"),
    [(3 << 20, 200), (MAX_BODY_BYTES, 200), (MAX_BODY_BYTES + 1, 413)],
)
@pytest.mark.parametrize("chunked", [False, True])
async def test_body_limit(launch: Launcher, size: int, status: int, chunked: bool) -> None:
    """The API server takes objects of 3 MiB and sends two of them; nobody sends more."""
    assert MAX_BODY_BYTES == 8 << 20
    data = sized(size)

    async def parts() -> AsyncIterator[bytes]:
        for at in range(0, len(data), 1 << 18):
            yield data[at : at + (1 << 18)]

    async with launch() as running:
        async with running.client.post(
            "/mutate", data=parts() if chunked else io.BytesIO(data), headers=JSON
        ) as answer:
            assert answer.status == status
            if status == 200:
                assert patch_of((await answer.json())["response"])
        assert (await post(running.client, body(review(pod()))))[0] == 200


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "nonsense"])
@pytest.mark.parametrize("data", [gzip.compress(body(review(pod()))), b"{}", b"\x1f\x8b\x08?"])
async def test_a_packed_body_is_not_taken(launch: Launcher, coding: str, data: bytes) -> None:
    """The API server sends none, and unpacking would cost more than the sender paid."""
    async with launch() as running:
        status, _ = await post(running.client, data, **{"Content-Encoding": coding})
    assert status == 415


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("POST", "/", 404),
        ("POST", "/mutate/", 404),
        ("POST", "/mutate/pods", 404),
        ("POST", "/MUTATE", 404),
        ("GET", "/healthz", 404),
        ("GET", "/mutate", 405),
        ("PUT", "/mutate", 405),
        ("DELETE", "/validate", 405),
        ("POST", "/livez", 405),
        ("POST", "/metrics", 405),
    ],
)
async def test_other_paths_and_methods(
    launch: Launcher, method: str, path: str, status: int
) -> None:
    """Not found, or not allowed."""
    async with (
        launch() as running,
        running.client.request(method, path, data=body(review(pod())), headers=JSON) as answer,
    ):
        assert answer.status == status


async def test_not_ready_is_worth_another_try(launch: Launcher) -> None:
    """503 with whole seconds of Retry-After, on a connection that is given up."""

    async def decide(_request: AdmissionRequest) -> Answer:
        raise NotReady("not synced", 3)

    async with (
        launch(mutate=decide) as running,
        running.client.post("/mutate", data=body(review(pod())), headers=JSON) as answer,
    ):
        assert answer.status == 503
        assert answer.headers["Retry-After"] == "3"
        assert answer.headers["Connection"].lower() == "close"
        assert await answer.text() == "not synced\n"


async def test_a_bug_is_500_and_tells_nothing(launch: Launcher) -> None:
    """The caller learns that it failed; the log learns why; the server lives on."""

    async def decide(request: AdmissionRequest) -> Answer:
        if request.uid == "bug":
            raise ValueError("internal detail")
        return await decided(request)

    async with launch(mutate=decide) as running:
        with structlog.testing.capture_logs() as lines:
            status, told = await post(running.client, body(changed(review(pod()), uid="bug")))
        assert (status, told["text"]) == (500, "internal error\n")
        assert [line["event"] for line in lines] == ["admission.failed"]
        assert lines[0]["uid"] == "bug"
        assert (await post(running.client, body(review(pod()))))[0] == 200


async def test_a_verdict_may_say_that_the_call_was_bad(launch: Launcher) -> None:
    """Later than the decoding too."""

    async def decide(_request: AdmissionRequest) -> Answer:
        raise BadReview("no such thing")

    async with launch(validate=decide) as running:
        status, told = await post(running.client, body(review(pod())), "/validate")
    assert (status, told["text"]) == (400, "no such thing\n")


# Deadlines.


async def test_a_verdict_that_takes_too_long(launch: Launcher) -> None:
    """The answer, with a hint to try again, reaches the API server inside the time it named."""
    cancelled = asyncio.Event()

    async def decide(_request: AdmissionRequest) -> Answer:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return Answer(allowed=True)

    # The API server drops the connection once the time that it named is over.
    patience = aiohttp.ClientTimeout(total=1)
    async with (
        launch(mutate=decide) as running,
        running.client.post(
            "/mutate?timeout=1s", data=body(review(pod())), headers=JSON, timeout=patience
        ) as answer,
    ):
        assert answer.status == 503
        assert answer.headers["Retry-After"] == "0"
        assert answer.headers["Connection"].lower() == "close"
    assert cancelled.is_set()


async def test_a_body_that_does_not_come(launch: Launcher, tls: Tls) -> None:
    """The deadline holds from the first byte of the call."""
    async with launch() as running:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", running.server.port, ssl=tls.client
        )
        try:
            writer.write(
                b"POST /mutate?timeout=1s HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n"
                b"Content-Type: application/json\r\n\r\n{"
            )
            await writer.drain()
            async with asyncio.timeout(20):
                assert await reader.readline() == b"HTTP/1.1 503 Service Unavailable\r\n"
                writer.write(b"x" * 999)  # what is still to come is swallowed
                assert b"Retry-After: 0\r\nConnection: close\r\n" in await reader.read()
        finally:
            writer.close()


@pytest.mark.parametrize("query", ["", "?timeout=", "?timeout=x", "?timeout=0s", "?timeout=-1s"])
async def test_an_odd_timeout_is_no_error(launch: Launcher, query: str) -> None:
    """There is always some time."""
    async with launch() as running:
        status, _ = await post(running.client, body(review(pod())), "/mutate" + query)
    assert status == 200


async def test_many_at_once(launch: Launcher) -> None:
    """More connections than an API server keeps open to one webhook."""
    data = body(review(pod(QUARTER)))

    async def call(client: aiohttp.ClientSession) -> bool:
        status, response = await post(client, data)
        return status == 200 and bool(patch_of(response))

    async with launch() as running:
        calls: list[Awaitable[bool]] = [call(running.client) for _ in range(60)]
        assert all(await asyncio.gather(*calls))
