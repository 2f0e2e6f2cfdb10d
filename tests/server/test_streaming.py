"""A drawing told while it is made."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from dreambooth_server import generations
from dreambooth_server.service import Service

URL = "/v1/images/generations"


async def events(client: httpx.AsyncClient, **body: Any) -> list[tuple[str, dict[str, Any]]]:
    found = []
    async with client.stream("POST", URL, json={"prompt": "rusty", "stream": True, **body}) as answer:
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/event-stream; charset=utf-8")
        text = "".join([part async for part in answer.aiter_text()])
    for block in text.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if lines:
            found.append((lines["event"], json.loads(lines["data"])))
    return found


async def test_each_step_then_the_answer(client: httpx.AsyncClient) -> None:
    *steps, (name, answer) = await events(client, steps=4, seed=3, n=2)
    assert name == "image_generation.completed"
    assert {kind for kind, _ in steps} == {"image_generation.progress"}
    told = [data["step"] for _, data in steps]
    assert told == sorted(set(told))
    assert told[-1] in (3, 4)
    assert all(data["steps"] == 4 for _, data in steps)
    plain = (await client.post(URL, json={"prompt": "rusty", "steps": 4, "seed": 3, "n": 2})).json()
    assert answer.pop("type") == name
    assert {**answer, "created": 0} == {**plain, "created": 0}


async def test_what_is_wrong_beforehand_has_its_status(client: httpx.AsyncClient) -> None:
    for body, status in (({"model": "nobody"}, 404), ({"size": "9x9"}, 400), ({"steps": 0}, 400)):
        answer = await client.post(URL, json={"prompt": "rusty", "stream": True, **body})
        assert (answer.status_code, answer.headers["Content-Type"]) == (status, "application/json")


async def test_what_goes_wrong_later_is_an_event(
    client: httpx.AsyncClient, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise ValueError("no file")

    monkeypatch.setattr(generations, "to_png", fail)
    *_, (name, data) = await events(client, steps=2)
    assert name == "error"
    assert data["error"]["type"] == "server_error"


async def test_nothing_is_drawn_for_a_client_that_went(service: Service) -> None:
    """The events' task is cancelled, as it is when the connection closes: the picture leaves the batch."""
    from dreambooth_server.app import create_app

    sent: list[Any] = []
    body = json.dumps({"prompt": "rusty", "stream": True, "steps": 100}).encode()
    gone = asyncio.Event()

    async def receive() -> Any:
        if not sent_body:
            sent_body.append(True)
            return {"type": "http.request", "body": body, "more_body": False}
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)
        if message["type"] == "http.response.body":
            gone.set()

    sent_body: list[bool] = []
    scope = {
        "type": "http", "method": "POST", "path": URL, "headers": [(b"content-type", b"application/json")],
        "query_string": b"", "http_version": "1.1", "asgi": {"version": "3.0"}, "scheme": "http", "server": ("x", 1),
    }  # fmt: skip
    await asyncio.wait_for(create_app(service)(scope, receive, send), 20)
    async with asyncio.timeout(20):
        while service.line._works:
            await asyncio.sleep(0.01)
    assert sum(b"progress" in message.get("body", b"") for message in sent) < 90
