"""`POST /v1/images/generations`."""

import asyncio
import base64
import math
import time
from collections.abc import Sequence

from fastapi import APIRouter, Request
from PIL import Image
from starlette.concurrency import run_in_threadpool

from dreambooth_server.artifacts import Artifact
from dreambooth_server.catalog import Plan, find_model, plan
from dreambooth_server.drawing import Cancelled, Refused
from dreambooth_server.errors import ApiError
from dreambooth_server.protocol import ERRORS, DrawnImage, ImageRequest, ImagesAnswer
from dreambooth_server.provenance import to_png
from dreambooth_server.queue import Full, Ticket
from dreambooth_server.service import Service

CLIENT_GONE = 499
"""nginx's status for a client that closed the connection: nobody reads it, but metrics count it."""
_POLL_SECONDS = 0.2

router = APIRouter()


@router.post("/v1/images/generations", responses=ERRORS)
async def generate(body: ImageRequest, request: Request) -> ImagesAnswer:
    """Draw pictures from words, as OpenAI's client asks for them."""
    service: Service = request.app.state.service
    engine, line = service.engine, service.line
    model = find_model(engine.artifacts, body.model)
    request.state.model = model
    understood = plan(body, model, engine)
    try:
        ticket = line.submit(understood.drawings)
    except Full as e:
        after = str(max(1, math.ceil(e.retry_after)))
        raise ApiError(429, "Too many requests are waiting.", "queue_full", headers={"Retry-After": after}) from e
    pictures = await _wait(ticket, request)
    service.metrics.images.labels(model).inc(len(pictures))
    artifact = engine.artifacts.get(model) or next(iter(engine.artifacts.values()))
    return await run_in_threadpool(_answer, understood, pictures, artifact)


async def _wait(ticket: Ticket, request: Request) -> list[Image.Image]:
    """The pictures; the work is called off when the client goes away or this task is cancelled. Raises ApiError."""
    future = asyncio.wrap_future(ticket.pictures)
    try:
        while not (await asyncio.wait({future}, timeout=_POLL_SECONDS))[0]:
            if await request.is_disconnected():
                raise ApiError(CLIENT_GONE, "The client closed the connection.", "client_gone")
        return future.result()
    except Refused as e:
        raise ApiError(500, str(e), "drawing_failed") from e
    except Cancelled as e:
        raise ApiError(CLIENT_GONE, "The work was called off.", "client_gone") from e
    finally:
        if not future.done():
            ticket.abandon()
            future.cancel()


def _answer(understood: Plan, pictures: Sequence[Image.Image], artifact: Artifact) -> ImagesAnswer:
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
        model=first.model,
        size=f"{first.width}x{first.height}",
        steps=first.steps,
        guidance_scale=first.guidance_scale,
        warnings=understood.warnings,
    )
