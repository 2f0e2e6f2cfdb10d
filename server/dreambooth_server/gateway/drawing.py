"""Pictures: `POST …/v1/images/generations`, at a subject's URL and at the gateway's own."""

import contextlib
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from dreambooth_api.names import HEADER_DIGEST
from dreambooth_server.gateway.addressing import Meant, from_model, from_path
from dreambooth_server.gateway.clients import unless_gone
from dreambooth_server.gateway.dispatch import Ask
from dreambooth_server.gateway.gateway import Gateway
from dreambooth_server.gateway.relay import Job
from dreambooth_server.gateway.replica import Answer, Wanted
from dreambooth_server.middleware import GENERATIONS
from dreambooth_server.protocol import ERRORS, SSE, STREAMED, ErrorAnswer, ImageRequest, ImagesAnswer

_TRACE = ("traceparent", "tracestate")
_UNBUFFERED = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
RESPONSES: dict[int | str, dict[str, Any]] = {
    **ERRORS,
    **{status: {"model": ErrorAnswer} for status in (401, 403, 502, 504)},
}
_PICTURES: dict[int | str, dict[str, Any]] = {200: STREAMED, **RESPONSES}

router = APIRouter()


@router.post(GENERATIONS, response_model=ImagesAnswer, responses=_PICTURES)
async def generate(body: ImageRequest, request: Request) -> Response:
    """Draw pictures of `model`, which is `namespace/name`."""
    return await _draw(request, body, from_model(body.model))


@router.post("/{namespace}/{name}" + GENERATIONS, response_model=ImagesAnswer, responses=_PICTURES)
async def generate_here(namespace: str, name: str, body: ImageRequest, request: Request) -> Response:
    """Draw pictures of the subject at this URL."""
    request.state.subject = namespace, name
    return await _draw(request, body, from_path((namespace, name), body.model))


async def _draw(request: Request, body: ImageRequest, meant: Meant) -> Response:
    gateway: Gateway = request.app.state.gateway
    noted = request.state
    noted.subject, noted.prompt = meant.subject, body.prompt
    route, key = gateway.admission.admit(meant.subject, request.headers.get("Authorization"))
    noted.key = key
    gateway.admission.charge(route, key)
    gateway.table.targets(route, meant.pinned)
    await gateway.check.approve(meant.subject, body.prompt, body.negative_prompt)
    job = Job(Ask(meant.subject, meant.pinned), _wanted(request, body, meant))
    async with contextlib.AsyncExitStack() as stack:
        try:
            answer = await unless_gone(request, stack.enter_async_context(gateway.relay.answering(job)))
        finally:
            noted.held, noted.digest = job.held, job.digests[-1] if job.digests else None
        headers = {**answer.headers, HEADER_DIGEST: noted.digest}
        if answer.response is not None:
            return _Streamed(answer, stack.pop_all(), headers)
        return Response(answer.body, answer.status, headers, answer.media_type)
    raise AssertionError("the stack swallows nothing")


def _wanted(request: Request, body: ImageRequest, meant: Meant) -> Wanted:
    # Written anew rather than passed on: what was checked is then what is drawn, whatever else the bytes could mean.
    asked = body.model_copy(update={"model": meant.model}).model_dump_json(exclude_unset=True)
    headers = {"Content-Type": "application/json"}
    headers |= {name: request.headers[name] for name in _TRACE if name in request.headers}
    return Wanted("POST", GENERATIONS, asked.encode(), headers)


class _Streamed(StreamingResponse):
    """Events as they come; the replica is given back when they end or the client goes away."""

    def __init__(self, answer: Answer, stack: contextlib.AsyncExitStack, headers: dict[str, str]) -> None:
        super().__init__(answer.stream(), answer.status, {**headers, **_UNBUFFERED}, SSE)
        self._stack = stack

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._stack:
            await super().__call__(scope, receive, send)
