"""`POST /routes`: a gateway's report comes in, and routes go out as soon as they are others than it has."""

import asyncio
import hmac
import logging
import time
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path

from aiohttp import web
from pydantic import ValidationError

from dreambooth_api.routes import HOLD_SECONDS, GatewayReport
from dreambooth_operator.routes import Table

# A report of ten thousand subjects with two artifacts each has some 5 MB.
MOST_BYTES = 16 * 2**20
# How often it is looked whether routes are others by now, seconds.
LOOK = 0.05

logger = logging.getLogger(__name__)


def routes_app(
    table: Table, token_file: Path, take: Callable[[GatewayReport], None], leading: Callable[[], bool]
) -> web.Application:
    """`take` is told every report; on a replica that does not lead (503) nobody is told anything."""

    async def routes(request: web.Request) -> web.Response:
        if problem := await _refused(request, token_file):
            return problem
        if not leading():
            return _no(HTTPStatus.SERVICE_UNAVAILABLE, "this replica does not lead: ask another one", retry="1")
        try:
            report = GatewayReport.model_validate_json(await request.read())
        except ValidationError as e:
            return _no(HTTPStatus.BAD_REQUEST, f"this is no GatewayReport: {e.errors(include_input=False)[:3]}")
        take(report)
        until = time.monotonic() + HOLD_SECONDS
        while leading():
            revision, body = table.current()
            if revision != report.revision:
                return web.Response(body=body, content_type="application/json")
            if time.monotonic() >= until:
                return web.Response(status=HTTPStatus.NO_CONTENT)
            await asyncio.sleep(LOOK)
        return _no(HTTPStatus.SERVICE_UNAVAILABLE, "this replica lost the lead: ask another one", retry="1")

    app = web.Application(client_max_size=MOST_BYTES)
    app.router.add_post("/routes", routes)
    return app


async def _refused(request: web.Request, token_file: Path) -> web.Response | None:
    """Who does not have the gateways' token learns nothing, not even whether this replica leads."""
    try:
        # Read each time: a token may be changed while the operator runs.
        token = (await asyncio.to_thread(token_file.read_bytes)).strip()
    except OSError as e:
        logger.error("the gateways' token cannot be read: %s", e)
        token = b""
    given = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
    if token and hmac.compare_digest(given, b"Bearer " + token):
        return None
    return _no(HTTPStatus.UNAUTHORIZED, "the gateways' token is wanted as the bearer")


def _no(status: HTTPStatus, message: str, retry: str | None = None) -> web.Response:
    headers = {"Retry-After": retry} if retry else {}
    return web.json_response({"error": message}, status=status, headers=headers)
