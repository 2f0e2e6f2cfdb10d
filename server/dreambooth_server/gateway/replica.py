"""One request to one replica, and what became of it."""

import json
import socket
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus

import aiohttp

from dreambooth_server.protocol import SSE

_CONNECT_SECONDS = 3.0
# A replica that cannot be reached, or that loads, is left alone for so long, seconds.
_AWAY_SECONDS = 1.0
# A replica may ask to be left alone for longer; then another look is cheaper than waiting.
_MOST_BUSY_SECONDS = 2.0
# uvicorn ends a connection that idles for 5 seconds: not to be on it when it does.
_KEEP_ALIVE_SECONDS = 3.0
# Codes of a 503 that say that nothing was begun, and that other requests would fare no better.
_NOT_YET = ("loading", "draining")

_ERROR_EVENT = b"event: error"
_LOST = {"message": "The replica ended while it drew.", "type": "server_error", "param": None, "code": "replica_lost"}
LOST = b"event: error\ndata: " + json.dumps({"error": _LOST}).encode() + b"\n\n"
"""The last event of a stream whose replica died."""


@dataclass(frozen=True)
class Wanted:
    """What is to be asked of a replica."""

    method: str
    path: str
    body: bytes | None
    headers: Mapping[str, str]


@dataclass
class Answer:
    """What a replica said."""

    status: int
    media_type: str
    headers: Mapping[str, str]
    body: bytes = b""
    response: aiohttp.ClientResponse | None = None
    """Of a stream, which is still to be read to its end; `body` is its beginning."""

    broken: bool = False
    """Whether the stream ended with an error, or without its end."""

    @property
    def failed(self) -> bool:
        """Whether the replica is at fault."""
        return self.broken or self.status >= HTTPStatus.INTERNAL_SERVER_ERROR

    async def stream(self) -> AsyncIterator[bytes]:
        """The events as they come; of a replica that dies the last one is an error."""
        if self.response is None:
            return
        chunk = self.body
        try:
            while chunk:
                self.broken = self.broken or _ERROR_EVENT in chunk
                yield chunk
                chunk = await self.response.content.readany()
        except (aiohttp.ClientError, TimeoutError):
            self.broken = True
            yield LOST

    def close(self) -> None:
        """Hang up, whether all was read or not: a replica that still draws for it stops."""
        if self.response is not None:
            self.response.close()


class Busy(Exception):
    """Nothing was begun: the request may go elsewhere, and come back after `seconds`."""

    def __init__(self, seconds: float, everybody: bool) -> None:
        super().__init__("the replica takes nothing now")
        self.seconds, self.everybody = seconds, everybody
        """`everybody`: whether that holds for other subjects too."""


class Died(Exception):
    """The connection ended before the answer did."""


def open_session() -> aiohttp.ClientSession:
    """Connections to replicas; to be closed by the caller."""
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE_SECONDS, socket_factory=_watched_socket)
    return aiohttp.ClientSession(
        connector=connector, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False
    )


async def ask_replica(session: aiohttp.ClientSession, address: str, wanted: Wanted, seconds: float) -> Answer:
    """The answer, of a stream its beginning. Raises Busy, Died, and TimeoutError after `seconds`."""
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=seconds)
    url = f"http://{address}{wanted.path}"
    try:
        response = await session.request(
            wanted.method, url, data=wanted.body, headers=wanted.headers, timeout=timeout, allow_redirects=False
        )
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as e:
        raise Busy(_AWAY_SECONDS, everybody=True) from e
    except aiohttp.ClientError as e:
        raise Died(str(e)) from e
    try:
        answer = await _read(response)
    except aiohttp.ClientError as e:
        raise Died(str(e)) from e
    finally:
        if not _streams(response):
            response.release()
    _raise_if_busy(answer)
    return answer


async def _read(response: aiohttp.ClientResponse) -> Answer:
    headers = {"Retry-After": response.headers["Retry-After"]} if "Retry-After" in response.headers else {}
    answer = Answer(response.status, response.content_type, headers)
    if not _streams(response):
        answer.body = await response.read()
        return answer
    try:
        # Only what has begun to arrive is an answer: until then the request may go elsewhere.
        answer.body = await response.content.readany()
    except BaseException:
        response.close()
        raise
    answer.response = response
    return answer


def _streams(response: aiohttp.ClientResponse) -> bool:
    return response.status == HTTPStatus.OK and response.content_type == SSE


def _raise_if_busy(answer: Answer) -> None:
    if answer.status == HTTPStatus.TOO_MANY_REQUESTS:
        told = answer.headers.get("Retry-After", "")
        raise Busy(min(float(told), _MOST_BUSY_SECONDS) if told.isdigit() else _AWAY_SECONDS, everybody=False)
    if answer.status == HTTPStatus.SERVICE_UNAVAILABLE and _code(answer.body) in _NOT_YET:
        raise Busy(_AWAY_SECONDS, everybody=True)


def _code(body: bytes) -> str | None:
    """The code of an error in OpenAI's shape."""
    try:
        return json.loads(body)["error"]["code"]
    except (ValueError, KeyError, TypeError):
        return None


def _watched_socket(info: aiohttp.AddrInfoType) -> socket.socket:
    """A socket whose other end is asked for now and then: a node that vanishes closes no connection."""
    family, kind, protocol, _, _ = info
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, name):
            made.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return made
