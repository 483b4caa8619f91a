"""The floor: an aiohttp handler over TLS that decodes a review and answers a fixed one.

Usage: python echo_server.py CERT KEY ANSWER_FILE DECODE
DECODE is ``typed`` (the structs our webhook reads) or ``none`` (the body is only read).
"""

import asyncio
import ssl
import sys
from pathlib import Path

from aiohttp import web

from gpu_fraction.webhook import review


async def main() -> None:
    """Serve on any port, which is printed, until killed."""
    cert, key, answer_file, decode = sys.argv[1:5]
    answer = Path(answer_file).read_bytes()

    async def handle(request: web.Request) -> web.Response:
        body = await request.read()
        if decode == "typed":
            asked = review.decode(body)
            review.decode_pod(asked.object, "object")
        return web.Response(body=answer, content_type="application/json")

    app = web.Application(client_max_size=8 << 20)
    app.router.add_post("/mutate", handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
