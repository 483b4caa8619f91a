"""Bytes that nobody meant: never a 500, never a hang, and the server lives on."""

import asyncio
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders.strategies import hostile_pods, json_values, text
from tests.support.reviews import RECORDED, body, recorded, review
from tests.support.tls import Tls
from tests.unit.webhook.conftest import Launcher

BOUND_S = 20.0
"""No answer within this is a hang; the calls say ``timeout=2s``."""


@dataclass(frozen=True)
class Port:
    """Where the server listens."""

    number: int
    tls: ssl.SSLContext

    def send(self, data: bytes) -> bytes:
        """All that comes back for these bytes, sent as they are, before either side closes."""
        with (
            socket.create_connection(("127.0.0.1", self.number), BOUND_S) as plain,
            self.tls.wrap_socket(plain, server_hostname="127.0.0.1") as connection,
        ):
            connection.settimeout(BOUND_S)
            try:
                connection.sendall(data)
                answer = b""
                while part := connection.recv(65536):
                    answer += part
            except (ConnectionError, ssl.SSLError):
                pass  # it may hang up on nonsense
            return answer

    def post(self, data: bytes, path: str = "/mutate", more: str = "") -> int:
        """The status of a well-formed call with this body."""
        head = (
            f"POST {path}?timeout=2s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n{more}\r\n"
        )
        answer = self.send(head.encode("utf-8", "surrogateescape") + data)
        return int(answer.split(b" ", 2)[1])


@pytest.fixture(scope="module")
def port(tls: Tls) -> Iterator[Port]:
    """A server in a thread of its own, so that the tests can be plain."""
    started = threading.Event()
    found: list[Port] = []

    async def serve(stop: asyncio.Event) -> None:
        async with Launcher(tls)() as running:
            found.append(Port(running.server.port, tls.client))
            started.set()
            await stop.wait()

    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(serve(stop)), name="server")
    thread.start()
    assert started.wait(BOUND_S)
    yield found[0]
    loop.call_soon_threadsafe(stop.set)
    thread.join(BOUND_S)
    assert not thread.is_alive()
    loop.close()


@given(st.binary(max_size=300))
def test_any_bytes_as_a_body(port: Port, data: bytes) -> None:
    """Are a bad call."""
    assert port.post(data) == 400


@given(json_values, st.sampled_from(["/mutate", "/validate"]))
def test_any_json_as_a_body(port: Port, value: object, path: str) -> None:
    """Is a bad call."""
    assert port.post(msgspec.json.encode(value), path) == 400


@given(json_values, json_values, st.sampled_from(["CREATE", "UPDATE", "DELETE"]))
def test_any_json_as_an_object(port: Port, new: object, old: object, operation: str) -> None:
    """Is judged or is a bad call."""
    raw = review(None, operation=operation)
    raw["request"].update(object=new, oldObject=old)
    for path in ("/mutate", "/validate"):
        assert port.post(body(raw), path) in {200, 400}


@given(hostile_pods(), hostile_pods(), st.sampled_from(["CREATE", "UPDATE"]))
def test_any_pod(
    port: Port, new: dict[str, object], old: dict[str, object], operation: str
) -> None:
    """Is judged."""
    for path in ("/mutate", "/validate"):
        assert port.post(body(review(new, old, operation=operation)), path) == 200


@given(
    st.sampled_from(RECORDED),
    st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_a_recorded_review_with_flipped_bytes(
    port: Port, name: str, flips: list[tuple[int, int]]
) -> None:
    """Is judged as what it then is, or is a bad call."""
    data = bytearray(body(recorded(name)))
    for at, value in flips:
        data[at % len(data)] = value
    assert port.post(bytes(data)) in {200, 400}


@given(st.sampled_from(RECORDED), st.floats(0, 1, exclude_max=True))
def test_a_recorded_review_cut_short(port: Port, name: str, part: float) -> None:
    """Is a bad call."""
    data = body(recorded(name))
    assert port.post(data[: int(len(data) * part)]) == 400


printable = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20)


@given(printable.map(lambda s: s.replace(" ", "").replace("#", "")), printable)
def test_any_path_and_header(port: Port, path: str, value: str) -> None:
    """Known or not found or not understood."""
    status = port.post(b"{}", "/" + path, f"X-Any: {value}\r\nContent-Encoding: {value}\r\n")
    assert status in {400, 404, 405, 415}


@settings(max_examples=25)
@given(st.binary(max_size=200), st.sampled_from([b"", b"POST /mutate HTTP/1.1\r\n", b"GET "]))
def test_any_bytes_instead_of_http(port: Port, data: bytes, start: bytes) -> None:
    """No answer, or a bad request; what follows ends every header."""
    answer = port.send(start + data + b"\r\n\r\n" + b"Connection: close\r\n\r\n")
    assert not answer.startswith(b"HTTP/1.1 5"), answer


@pytest.mark.parametrize(
    "chunks",
    [
        b"zz\r\n{}\r\n0\r\n\r\n",
        b"-1\r\n{}\r\n0\r\n\r\n",
        b"2\r\n{}garbage",
        b"ffffffffffffffffff\r\n{}",
        b"2;ext\r\n{}\r\n0\r\n\r\n",
    ],
)
def test_broken_chunks(port: Port, chunks: bytes) -> None:
    """A body that ends in nonsense is the caller's fault, or is cut off."""
    head = (
        b"POST /mutate?timeout=2s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    )
    answer = port.send(head + chunks)
    assert not answer.startswith((b"HTTP/1.1 2", b"HTTP/1.1 500")), answer


@given(text)
def test_the_server_lives_on(port: Port, uid: str) -> None:
    """And answers each caller with his own uid."""
    raw = review({"metadata": {}, "spec": {"containers": []}})
    raw["request"]["uid"] = uid
    assert port.post(body(raw)) == 200
