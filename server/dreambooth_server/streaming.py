"""A drawing told while it is made, as server-sent events (the WHATWG's HTML standard, section 9.2)."""

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Awaitable
from typing import Any

from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from dreambooth_server.errors import ApiError, internal_error
from dreambooth_server.protocol import SSE, ImagesAnswer, Progress

log = logging.getLogger(__name__)
COMPLETED = "image_generation.completed"
# Without a word for so long, proxies take a connection for dead.
_ALIVE_SECONDS = 10.0


class Reporter:
    """Carries progress from the drawing thread to the event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._news: asyncio.Queue[Progress] = asyncio.Queue()

    def told(self, step: int, steps: int) -> None:
        """From any thread."""
        # A loop that is closed has no client left.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._news.put_nowait, Progress(step=step, steps=steps))

    async def next(self) -> Progress:
        """The next news."""
        return await self._news.get()


def stream(reporter: Reporter, answer: Awaitable[ImagesAnswer]) -> StreamingResponse:
    """Progress, then the answer or the error; `answer` is cancelled when the client does not wait for the end."""
    # Begun now: should nobody ever read the events, it notices by itself.
    done = asyncio.ensure_future(answer)
    return StreamingResponse(
        _events(reporter, done),
        media_type=SSE,
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _events(reporter: Reporter, done: "asyncio.Future[ImagesAnswer]") -> AsyncIterator[bytes]:
    news = asyncio.ensure_future(reporter.next())
    last = -1
    try:
        while not done.done():
            either: set[asyncio.Future[Any]] = {done, news}
            await asyncio.wait(either, timeout=_ALIVE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if news.done():
                told = news.result()
                news = asyncio.ensure_future(reporter.next())
                if told.step > last:
                    last = told.step
                    yield _event(told.type, told)
            elif not done.done():
                yield b": still here\n\n"
        try:
            yield _event(COMPLETED, done.result())
        except ApiError as e:
            yield _error(e)
        except Exception:  # A request's edge: its status is sent already.
            log.exception("a streamed request failed")
            yield _error(internal_error())
    finally:
        news.cancel()
        done.cancel()


def _error(error: ApiError) -> bytes:
    return b"event: error\ndata: " + bytes(error.answer().body) + b"\n\n"


def _event(name: str, data: BaseModel) -> bytes:
    """One event; JSON has no line breaks of its own."""
    body = json.dumps({"type": name, **data.model_dump()}, separators=(",", ":"))
    return f"event: {name}\ndata: {body}\n\n".encode()
