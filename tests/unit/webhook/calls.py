"""Calls to a running admission server."""

import json

import aiohttp

from tests.builders.pods import Raw

JSON = {"Content-Type": "application/json"}
QUARTER = {"gpu-fraction": "0.25"}


async def post(
    client: aiohttp.ClientSession, data: bytes, path: str = "/mutate?timeout=10s", **headers: str
) -> tuple[int, Raw]:
    """The status, and the response where there is one."""
    async with client.post(path, data=data, headers={**JSON, **headers}) as answer:
        text = await answer.text()
        if answer.status != 200:
            return answer.status, {"text": text}
        assert answer.content_type == "application/json"
        made: Raw = json.loads(text)["response"]
        return 200, made
