"""The operator's side: a report goes out, routes come back, again and again."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable
from http import HTTPStatus
from urllib.parse import urlsplit

import aiohttp

from dreambooth_api.routes import HOLD_SECONDS, GatewayReport, Routes
from dreambooth_server.gateway.dispatch import Dispatcher
from dreambooth_server.gateway.settings import Settings
from dreambooth_server.gateway.table import Table
from dreambooth_server.gateway.tally import Tally

log = logging.getLogger(__name__)
_TIMEOUT = aiohttp.ClientTimeout(total=HOLD_SECONDS + 5.0, sock_connect=2.0)
_LAST_WORD = aiohttp.ClientTimeout(total=2.0)
# Between reports, seconds: of a burst that wakes many subjects not every request is a report of its own.
_LEAST_PAUSE = 0.05
_PAUSE_WITHOUT_LEADER = 0.5


class Operator:
    """Keeps the table up to date, and the operator informed. Without an operator the table stays as it is."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        settings: Settings,
        table: Table,
        tally: Tally,
        dispatcher: Dispatcher,
        changed: Callable[[], None],
        draining: Callable[[], bool],
    ) -> None:
        """`changed` is called whenever the table is another."""
        self._session, self._settings = session, settings
        self._table, self._tally, self._dispatcher, self._changed = table, tally, dispatcher, changed
        self._draining = draining
        self.leader: str | None = None
        """The URL of the replica that answered last."""
        self._complaint = ""

    async def run(self) -> None:
        """Until cancelled; then the last report goes out, so that nothing that was counted is lost."""
        try:
            while True:
                reporting = asyncio.ensure_future(self._report(_TIMEOUT))
                needed = asyncio.ensure_future(self._dispatcher.needed.wait())
                try:
                    await asyncio.wait({reporting, needed}, return_when=asyncio.FIRST_COMPLETED)
                    # Somebody waits for a replica that does not exist: the operator must know now, not in a moment.
                    heard = reporting.result() if reporting.done() else True
                finally:
                    for task in (reporting, needed):
                        task.cancel()
                        with contextlib.suppress(asyncio.CancelledError):
                            await task
                self._dispatcher.needed.clear()
                await asyncio.sleep(_LEAST_PAUSE if heard else _PAUSE_WITHOUT_LEADER)
        finally:
            await self._report(_LAST_WORD)

    def _composed(self) -> bytes:
        report = GatewayReport(
            gateway=self._settings.identity,
            revision=self._table.revision,
            draining=self._draining(),
            loads=self._tally.loads(self._table.routes),
            traffic=self._tally.traffic(),
        )
        return report.model_dump_json(by_alias=True).encode()

    async def _report(self, timeout: aiohttp.ClientTimeout) -> bool:
        """Tell the leader and take its routes; false when there is none."""
        complaints = []
        try:
            for address in await self.addresses():
                try:
                    if await self._tell(address, timeout):
                        self.leader = address
                        self._say("")
                        return True
                    complaints.append(f"{address} does not lead")
                except (aiohttp.ClientError, TimeoutError, ValueError) as e:
                    complaints.append(f"{address}: {type(e).__name__} {e}")
        except OSError as e:
            complaints.append(str(e))
        self._say(f"no answer from the operator, the routes stay: {'; '.join(complaints)}")
        return False

    async def _tell(self, address: str, timeout: aiohttp.ClientTimeout) -> bool:
        """Whether the operator at `address` took the report. Raises aiohttp.ClientError, TimeoutError, ValueError."""
        token = await asyncio.to_thread(self._settings.token_file.read_text)
        headers = {"Authorization": f"Bearer {token.strip()}", "Content-Type": "application/json"}
        url = f"{address}/routes"
        async with self._session.post(url, data=self._composed(), headers=headers, timeout=timeout) as answer:
            if answer.status == HTTPStatus.OK:
                routes = Routes.model_validate_json(await answer.read())
                if routes.revision != self._table.revision or not self._table.known:
                    self._table.replace(routes)
                    self._changed()
                return True
            if answer.status in (HTTPStatus.NO_CONTENT, HTTPStatus.SERVICE_UNAVAILABLE):
                return answer.status == HTTPStatus.NO_CONTENT
            raise ValueError(f"status {answer.status}: {(await answer.text())[:200]}")

    async def addresses(self) -> list[str]:
        """URLs of all replicas of the operator, the last known leader first. Raises OSError."""
        parts = urlsplit(self._settings.operator)
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(parts.hostname, parts.port or 80, type=socket.SOCK_STREAM)
        hosts = dict.fromkeys(str(address[0]) for *_, address in found)
        urls = [f"http://{f'[{host}]' if ':' in host else host}:{parts.port or 80}" for host in hosts]
        return sorted(urls, key=lambda url: url != self.leader)

    def _say(self, complaint: str) -> None:
        """Log a complaint once, not every half second; and that it is over."""
        if complaint and not self._complaint:
            log.warning("%s", complaint)
        elif self._complaint and not complaint:
            log.info("the operator answers again")
        self._complaint = complaint
