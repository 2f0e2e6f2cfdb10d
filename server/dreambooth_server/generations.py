"""`POST /v1/images/generations`."""

import asyncio
import base64
import math
import time
from collections.abc import Awaitable, Sequence
from typing import TypeVar

from fastapi import APIRouter, Request, Response
from PIL import Image
from starlette.concurrency import run_in_threadpool

from dreambooth_server.artifacts import Artifact
from dreambooth_server.catalog import Plan, Wanted, plan
from dreambooth_server.drawing import Cancelled, Refused
from dreambooth_server.errors import ApiError
from dreambooth_server.protocol import ERRORS, STREAMED, DrawnImage, ImageRequest, ImagesAnswer
from dreambooth_server.provenance import to_png
from dreambooth_server.queue import Full, Ticket
from dreambooth_server.service import Service
from dreambooth_server.settings import BASE_MODEL
from dreambooth_server.streaming import Reporter, stream

CLIENT_GONE = 499
"""nginx's status for a client that closed the connection: nobody reads it, but metrics count it."""
_POLL_SECONDS = 0.2

T = TypeVar("T")

router = APIRouter()


@router.post("/v1/images/generations", responses={200: STREAMED, **ERRORS}, response_model=ImagesAnswer)
async def generate(body: ImageRequest, request: Request) -> ImagesAnswer | Response:
    """Draw pictures from words, as OpenAI's client asks for them."""
    service: Service = request.app.state.service
    engine, line, subjects = service.engine, service.line, service.subjects
    wanted = await _while_there(subjects.find(request.headers, body.model), request)
    request.state.model = subjects.label(wanted)
    understood = plan(body, wanted, engine)
    reporter = Reporter() if body.stream else None
    try:
        ticket = line.submit(understood.drawings, reporter.told if reporter else None)
    except Full as e:
        raise _full(e) from e
    answer = _drawn(ticket, understood, wanted, body.model, service, request)
    return stream(reporter, answer) if reporter else await answer


async def _drawn(
    ticket: Ticket, understood: Plan, wanted: Wanted, called: str | None, service: Service, request: Request
) -> ImagesAnswer:
    """The answer, once everything is drawn; the work is called off when this is cancelled. Raises ApiError."""
    try:
        pictures = await _while_there(asyncio.wrap_future(ticket.pictures), request)
    except Full as e:
        raise _full(e) from e
    except Refused as e:
        raise ApiError(500, str(e), "drawing_failed") from e
    except Cancelled as e:
        raise _gone() from e
    finally:
        ticket.abandon()
    service.metrics.images.labels(service.subjects.label(wanted)).inc(len(pictures))
    name = called or (BASE_MODEL if wanted.model == BASE_MODEL else wanted.artifact.name)
    return await run_in_threadpool(_answer, understood, pictures, wanted.artifact, name)


async def _while_there(work: Awaitable[T], request: Request) -> T:
    """What `work` gives, as long as the client waits for it. Raises ApiError when it does not."""
    task = asyncio.ensure_future(work)
    try:
        while not (await asyncio.wait({task}, timeout=_POLL_SECONDS))[0]:
            if await request.is_disconnected():
                raise _gone()
        return task.result()
    finally:
        task.cancel()


def _gone() -> ApiError:
    return ApiError(CLIENT_GONE, "The client closed the connection.", "client_gone")


def _full(full: Full) -> ApiError:
    after = str(max(1, math.ceil(full.retry_after)))
    return ApiError(429, "Too many requests are waiting.", "queue_full", headers={"Retry-After": after})


def _answer(understood: Plan, pictures: Sequence[Image.Image], artifact: Artifact, name: str) -> ImagesAnswer:
    first = understood.drawings[0]
    data = [
        DrawnImage(
            b64_json=base64.b64encode(to_png(picture, drawing, artifact)).decode(),
            revised_prompt=drawing.prompt,
            seed=drawing.seed,
        )
        for picture, drawing in zip(pictures, understood.drawings, strict=True)
    ]
    return ImagesAnswer(
        created=int(time.time()),
        data=data,
        model=name,
        size=f"{first.width}x{first.height}",
        steps=first.steps,
        guidance_scale=first.guidance_scale,
        warnings=understood.warnings,
    )
