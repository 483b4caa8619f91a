"""``gpu-fraction demo --reviews``: examples as diffs, and reviews of a real API server.

Prints every example as a coloured diff, then starts the real webhook with a temporary certificate
and posts recorded reviews of a real API server. Like an API server, it sends pods to ``/validate``
with the patch of ``/mutate`` applied.
"""

import argparse
import asyncio
import base64
import json
import os
import ssl
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import jsonpatch

from gpu_fraction.certs import pki
from gpu_fraction.certs.lifetimes import Lifetimes
from gpu_fraction.cli import mutate
from gpu_fraction.kube.timestamps import utc_now

CARD_SIZE: Final = "80Gi"
"""The memory of every GPU in the demo."""

_START_S: Final = 20.0
_CALL_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Row:
    """One review and the webhook's answer."""

    file: str
    decision: str
    patch: list[dict[str, Any]]
    notes: list[str]
    ms: float


def run(folder: Path, environ: Mapping[str, str]) -> int:
    """Show the examples of a folder and post its reviews; the exit code."""
    if not any(folder.glob("*.yaml")):
        sys.stderr.write(
            f"gpu-fraction: {folder} contains no manifests; run the demo in a checkout of the "
            "repository, or give --examples\n"
        )
        return 2
    code = _show_examples(folder, environ)
    if code:
        return code
    rows = asyncio.run(_post_reviews(sorted((folder / "reviews").glob("*.json"))))
    _print_table(rows)
    return 0


def _show_examples(folder: Path, environ: Mapping[str, str]) -> int:
    for file in sorted(folder.glob("*.yaml")):
        sys.stdout.write(
            f"\n$ gpu-fraction mutate -f {file} -o diff --gpu-memory-mib {CARD_SIZE}\n"
        )
        sys.stdout.flush()
        args = argparse.Namespace(
            filename=[str(file)],
            output="diff",
            color="always",
            config=None,
            gpu_memory_mib=CARD_SIZE,
        )
        if code := mutate.run(args, environ):
            return code
    return 0


async def _post_reviews(files: list[Path]) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        trust = _certificate(Path(folder))
        async with _webhook(Path(folder)) as port:
            connector = aiohttp.TCPConnector(ssl=trust, limit=1)
            timeout = aiohttp.ClientTimeout(total=_CALL_S)
            async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
                sys.stdout.write(f"\nposting {len(files)} recorded reviews over TLS\n\n")
                rows: dict[str, Row] = {}
                for file in files:
                    mutated = rows.get(file.stem.replace("-validating", "-mutating"))
                    patch = mutated.patch if mutated else []
                    rows[file.stem] = await _post(session, port, file, patch)
                return list(rows.values())


def _certificate(folder: Path) -> ssl.SSLContext:
    """Write a certificate and key for localhost; return a TLS context that trusts them."""
    now = utc_now()
    authority = pki.new_authority("gpu-fraction demo", now, Lifetimes())
    leaf = pki.issue_leaf(authority, ["localhost"], now, Lifetimes())
    (folder / "tls.crt").write_text(leaf.chain_pem)
    (folder / "tls.key").write_text(leaf.key_pem)
    return ssl.create_default_context(cadata=authority.certificate.pem)


@asynccontextmanager
async def _webhook(folder: Path) -> AsyncIterator[int]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "gpu_fraction.cli.main",
        "webhook",
        *("--tls-cert", str(folder / "tls.crt"), "--tls-key", str(folder / "tls.key")),
        *("--host", "127.0.0.1", "--port", "0", "--gpu-memory-mib", CARD_SIZE),
        *("--drain-least", "0", "--drain-most", "1"),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ},
    )
    try:
        yield await _port(process)
    finally:
        if process.returncode is None:
            process.terminate()
        async with asyncio.timeout(_CALL_S):
            await process.communicate()


async def _port(process: asyncio.subprocess.Process) -> int:
    """The port, from the log line ``server.listening``."""
    if process.stdout is None:
        raise RuntimeError("the webhook process has no output pipe")
    async with asyncio.timeout(_START_S):
        async for line in process.stdout:
            event = json.loads(line)
            if event.get("event") == "server.listening":
                return int(event["port"])
    raise RuntimeError("the webhook ended before it listened")


async def _post(
    session: aiohttp.ClientSession, port: int, file: Path, patch: list[dict[str, Any]]
) -> Row:
    """Post a recorded review; ``patch`` is applied to its object first."""
    recorded = await asyncio.to_thread(file.read_text)
    body = json.loads(recorded)["body"]
    if patch:
        jsonpatch.JsonPatch(patch).apply(body["request"]["object"], in_place=True)
    path = "mutate" if file.stem.endswith("-mutating") else "validate"
    loop = asyncio.get_running_loop()
    started = loop.time()
    url = f"https://localhost:{port}/{path}?timeout=10s"
    async with session.post(url, json=body) as response:
        text = await response.text()
    ms = (loop.time() - started) * 1000
    if response.status != 200:
        return Row(file.stem, f"HTTP {response.status}", [], [text.strip()], ms)
    answer = json.loads(text)["response"]
    notes = [] if answer["allowed"] else [answer["status"]["message"]]
    return Row(
        file.stem,
        "allowed" if answer["allowed"] else "refused",
        json.loads(base64.b64decode(answer.get("patch", "W10="))),
        notes + answer.get("warnings", []),
        ms,
    )


def _print_table(rows: list[Row]) -> None:
    width = max(len(row.file) for row in rows)
    sys.stdout.write(f"{'review':{width}}  {'decision':8}  {'ms':>6}  patch, warnings\n")
    for row in rows:
        start = f"{row.file:{width}}  {row.decision:8}  {row.ms:6.2f}"
        for line in [f"{o['op']} {o['path']}" for o in row.patch] + row.notes or [""]:
            sys.stdout.write(f"{start}  {line}".rstrip() + "\n")
            start = " " * len(start)
