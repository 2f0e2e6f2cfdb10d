"""Asks a pool's replica to fetch and verify a subject before anybody wants it drawn."""

import zlib

import aiohttp
from pydantic import ValidationError

from dreambooth_api import names
from dreambooth_api.adapters import AdapterPhase, AdapterRequest, AdapterState
from dreambooth_operator import deployments
from dreambooth_operator.views import Body

TIMEOUT = aiohttp.ClientTimeout(total=3, connect=1)
MAX_BYTES = 65536


def replica(pods: list[Body], subject: str) -> str | None:
    """The address of the pool's replica that a subject is verified on: one that is ready, another for each subject."""
    ready = sorted(pod["status"]["podIP"] for pod in pods if deployments.ready(pod) and pod["status"].get("podIP"))
    return ready[zlib.crc32(subject.encode()) % len(ready)] if ready else None


async def ask(session: aiohttp.ClientSession, address: str, request: AdapterRequest) -> AdapterState:
    """What the replica at an IP address says of the subject; `Fetching` as long as it says nothing of use."""
    host = f"[{address}]" if ":" in address else address
    url, silent = f"http://{host}:{names.SERVER_PORT}/adapters", AdapterState(
        digest=request.digest, phase=AdapterPhase.FETCHING
    )  # fmt: skip
    try:
        async with session.post(url, json=request.to_dict(), timeout=TIMEOUT, allow_redirects=False) as answer:
            if answer.status not in (200, 202):
                return silent
            state = AdapterState.model_validate_json(await answer.content.read(MAX_BYTES))
            return state if state.digest == request.digest else silent
    except (aiohttp.ClientError, TimeoutError, OSError, ValidationError):
        return silent
