"""Asks a running trainer how far it is: pods need no access to the API server to tell it."""

import aiohttp
from pydantic import ValidationError

from dreambooth_api import names
from dreambooth_api.result import Report

TIMEOUT = aiohttp.ClientTimeout(total=3, connect=1)
MAX_BYTES = 65536


async def ask(session: aiohttp.ClientSession, address: str) -> Report | None:
    """The report of the trainer at an IP address; None while it has none, or does not answer.

    The answer comes from a pod that runs a user's job: it is cut, parsed strictly by shape, and never trusted further.
    """
    host = f"[{address}]" if ":" in address else address
    url = f"http://{host}:{names.TRAINER_PORT}/progress"
    try:
        async with session.get(url, timeout=TIMEOUT, allow_redirects=False) as answer:
            if answer.status != 200:
                return None
            return Report.model_validate_json(await answer.content.read(MAX_BYTES))
    except (aiohttp.ClientError, TimeoutError, OSError, ValidationError):
        return None
