"""Load on one HTTPS path over kept-alive connections, from a process of its own.

Usage: python load.py PORT PATH BODY_FILE CONNECTIONS SECONDS CA_FILE
A run of sixteen zeros in the body becomes a number of its own in every request.
Prints one JSON object: requests, errors, seconds, p50_ms, p99_ms.
"""

import asyncio
import itertools
import json
import ssl
import sys
from pathlib import Path

NUMBERS = itertools.count(1)


async def connection(
    port: int, request: bytes, until: float, context: ssl.SSLContext, times: list[float]
) -> int:
    """Post on one connection until the time is up; the number of failures."""
    loop = asyncio.get_running_loop()
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=context, server_hostname="localhost"
    )
    errors = 0
    before, mark, after = request.partition(b"0" * 16)
    while loop.time() < until:
        started = loop.time()
        writer.write(before + b"%016d" % next(NUMBERS) + after if mark else request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = 0
        for line in head.split(b"\r\n"):
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        await reader.readexactly(length)
        if b" 200 " not in head.split(b"\r\n", 1)[0]:
            errors += 1
        times.append(loop.time() - started)
    writer.close()
    return errors


async def main() -> None:
    """Run all connections side by side."""
    port, path, body_file, connections, seconds, ca = sys.argv[1:7]
    body = Path(body_file).read_bytes()
    request = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"User-Agent: kube-apiserver-admission\r\nAccept: application/json, */*\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body
    context = ssl.create_default_context(cafile=ca)
    times: list[float] = []
    loop = asyncio.get_running_loop()
    started = loop.time()
    errors = await asyncio.gather(
        *(
            connection(int(port), request, started + float(seconds), context, times)
            for _ in range(int(connections))
        )
    )
    took = loop.time() - started
    times.sort()
    print(
        json.dumps(
            {
                "requests": len(times),
                "errors": sum(errors),
                "seconds": took,
                "p50_ms": times[len(times) // 2] * 1000,
                "p99_ms": times[len(times) * 99 // 100] * 1000,
            }
        )
    )


asyncio.run(main())
