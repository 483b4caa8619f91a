"""The real ``gpu-fraction webhook`` process: under load when it is told to stop."""

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import aiohttp

from tests.builders.pods import Raw, container, env, pod
from tests.support.reviews import body, changed, patch_of, review
from tests.support.tls import Tls

CLIENTS = 6
SECRET = "canary-91c2"


@dataclass
class Program:
    """A running webhook and what it writes."""

    process: asyncio.subprocess.Process
    lines: list[str] = field(default_factory=list)
    port: int = 0

    async def read(self) -> None:
        """Collect its output to the end."""
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.lines.append(line.decode())

    async def listening(self) -> None:
        """Wait until it says on which port."""
        while not self.port:
            assert self.process.returncode is None, self.lines
            for line in self.lines:
                if "server.listening" in line:
                    self.port = json.loads(line)["port"]
            await asyncio.sleep(0.02)

    def logged(self) -> list[Raw]:
        """Its output: every line is JSON."""
        return [json.loads(line) for line in self.lines]

    def events(self) -> list[str]:
        """The names of what happened."""
        return [line["event"] for line in self.logged()]


@contextlib.asynccontextmanager
async def program(tls: Tls, *options: str) -> AsyncIterator[Program]:
    """The command as a person starts it, on any free port of loopback."""
    command = [sys.executable, "-m", "gpu_fraction.cli.main", "webhook"]
    command += ["--tls-cert", str(tls.cert), "--tls-key", str(tls.key)]
    command += ["--host", "127.0.0.1", "--port", "0", "--log-level", "debug", *options]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    made = Program(process)
    reading = asyncio.create_task(made.read())
    try:
        async with asyncio.timeout(50):
            await made.listening()
            yield made
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await reading


@dataclass
class Client:
    """Keeps one connection and posts until it is told to go."""

    session: aiohttp.ClientSession
    uid: str
    answered: int = 0

    async def post(self) -> bool:
        """One review; whether the connection is to be closed."""
        raw = pod(
            {"gpu-fraction": "0.25", "note": SECRET},
            container("main", env=env(("TOKEN", SECRET))),
        )
        data = body(changed(review(raw), uid=self.uid))
        async with self.session.post(
            "/mutate?timeout=10s", data=data, headers={"Content-Type": "application/json"}
        ) as answer:
            assert answer.status == 200
            response = (await answer.json())["response"]
            assert response["uid"] == self.uid
            assert patch_of(response)
            self.answered += 1
            return answer.headers.get("Connection") == "close"

    async def run(self) -> None:
        """Post until told to close; then once more on a new connection, as a late comer."""
        async with self.session:
            while not await self.post():
                pass
            assert await self.post()


async def test_no_request_fails_when_the_process_is_told_to_stop(tls: Tls) -> None:
    """SIGTERM in the middle of a load on kept-alive connections: all answered, exit code 0."""
    async with program(tls, "--drain-least", "1", "--drain-most", "40") as running:
        base = f"https://127.0.0.1:{running.port}"

        def session() -> aiohttp.ClientSession:
            connector = aiohttp.TCPConnector(ssl=tls.client, limit=1)
            return aiohttp.ClientSession(base, connector=connector)

        clients = [Client(session(), f"client-{i}") for i in range(CLIENTS)]
        async with session() as prober, asyncio.TaskGroup() as tasks:
            async with prober.get("/readyz") as answer:
                assert answer.status == 200
            for client in clients:
                tasks.create_task(client.run(), name=client.uid)
            while min(client.answered for client in clients) < 5:
                await asyncio.sleep(0.01)
            running.process.send_signal(signal.SIGTERM)
            while "server.draining" not in "".join(running.lines):
                await asyncio.sleep(0.01)
            async with prober.get("/readyz") as answer:
                assert (answer.status, await answer.text()) == (503, "stopping\n")
            async with prober.get("/livez") as answer:
                assert answer.status == 200
        assert await running.process.wait() == 0
    answered = sum(client.answered for client in clients)
    assert running.events().count("admission.reviewed") == answered
    assert running.logged()[-1]["event"] == "server.stopped"
    assert running.logged()[-1]["connections_left"] == 0
    assert {"error", "warning", "critical"}.isdisjoint(line["level"] for line in running.logged())
    assert SECRET not in "".join(running.lines)


async def test_an_interrupt_stops_it_too(tls: Tls) -> None:
    """And bad calls and nonsense on the port show up in the log as one line of JSON each."""
    async with program(tls, "--drain-least", "0", "--drain-most", "1") as running:
        _, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(b"no TLS at all\r\n\r\n")
        await writer.drain()
        writer.close()
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls.client)) as client:
            url = f"https://127.0.0.1:{running.port}/mutate"
            headers = {"Content-Type": "application/json"}
            for data in (f'{{"kind":"{SECRET}', f'{{"request":{{"object":"{SECRET}"}}}}'):
                async with client.post(url, data=data, headers=headers) as answer:
                    assert answer.status == 400
        running.process.send_signal(signal.SIGINT)
        assert await running.process.wait() == 0
    assert running.events().count("admission.bad_call") == 2
    assert SECRET not in "".join(running.lines)
