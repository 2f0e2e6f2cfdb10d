"""The content check: somebody else's service that says whether a prompt may be drawn.

It gets `POST {"prompt", "negative_prompt", "namespace", "model"}` and answers 200 for yes, or 403 for no with
`{"message": …}`. All else is no answer.
"""

from http import HTTPStatus

import aiohttp

from dreambooth_server.errors import ApiError
from dreambooth_server.gateway.settings import Settings
from dreambooth_server.gateway.table import Subject

_TIMEOUT = aiohttp.ClientTimeout(total=5.0)
_RETRY = {"Retry-After": "5"}
_MAX_MESSAGE = 500


class ContentCheck:
    """Asks it, if there is one."""

    def __init__(self, session: aiohttp.ClientSession, settings: Settings) -> None:
        self._session, self._url, self._open = session, settings.check_url, settings.check_open

    async def approve(self, subject: Subject, prompt: str, negative_prompt: str | None) -> None:
        """Raises ApiError: 400 for a prompt that may not be drawn, 503 when there is no answer and there must be."""
        if self._url is None:
            return
        namespace, model = subject
        asked = {"prompt": prompt, "negative_prompt": negative_prompt or "", "namespace": namespace, "model": model}
        try:
            async with self._session.post(self._url, json=asked, timeout=_TIMEOUT, allow_redirects=False) as answer:
                if answer.status == HTTPStatus.FORBIDDEN:
                    raise ApiError(400, await _reason(answer), "content_policy_violation", "prompt")
                approved = answer.status == HTTPStatus.OK
        except (aiohttp.ClientError, TimeoutError):
            approved = False
        if not approved and not self._open:
            raise ApiError(503, "The content check does not answer.", "check_unavailable", headers=_RETRY)


async def _reason(answer: aiohttp.ClientResponse) -> str:
    try:
        stated = (await answer.json(content_type=None))["message"]
    except (ValueError, KeyError, TypeError):
        stated = None
    return stated[:_MAX_MESSAGE] if isinstance(stated, str) else "The prompt is not allowed here."
