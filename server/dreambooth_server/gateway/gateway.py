"""What one gateway process holds."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from dreambooth_server.gateway.admission import Admission
from dreambooth_server.gateway.check import ContentCheck
from dreambooth_server.gateway.dispatch import Dispatcher
from dreambooth_server.gateway.metrics import make_metrics
from dreambooth_server.gateway.operator import Operator
from dreambooth_server.gateway.relay import Relay
from dreambooth_server.gateway.replica import open_session
from dreambooth_server.gateway.settings import Settings
from dreambooth_server.gateway.table import Subject, Table
from dreambooth_server.gateway.tally import Tally

Card = dict[str, Any]
"""A model's entry in a replica's list."""


class Gateway:
    """The one stateful object; `app` reads it, the operator's word changes it."""

    relay: Relay
    check: ContentCheck
    operator: Operator

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.draining = False
        self.table, self.tally = Table(), Tally()
        self.metrics = make_metrics(self.table, self.tally)
        self.dispatcher = Dispatcher(self.table, self.tally, settings.queue)
        self.admission = Admission(self.table)
        self.cards: dict[tuple[Subject, str], tuple[Card, Card | None]] = {}
        """What replicas said of artifacts and their bases: it never changes, so nobody is woken to say it again."""
        self._subjects: set[Subject] = set()

    @property
    def ready(self) -> bool:
        """Whether requests should come here."""
        return self.table.known and not self.draining

    def drain(self) -> None:
        """Be unready from now on; requests are still served."""
        self.draining = True

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """At work until the context ends."""
        async with open_session() as session:
            self.relay = Relay(session, self.dispatcher, self.tally, self.metrics, self.settings)
            self.check = ContentCheck(session, self.settings)
            self.operator = Operator(
                session,
                self.settings,
                self.table,
                self.tally,
                self.dispatcher,
                self._routes_changed,
                lambda: self.draining,
            )
            polling = asyncio.create_task(self.operator.run())
            try:
                yield
            finally:
                self.drain()
                polling.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await polling

    def _routes_changed(self) -> None:
        subjects = set(self.table.routes)
        for gone in self._subjects - subjects:
            self.metrics.forget(gone)
        self._subjects = subjects
        digests = {(s, target.digest) for s, route in self.table.routes.items() for target in route.targets}
        self.cards = {key: card for key, card in self.cards.items() if key in digests}
        self.admission.routes_changed()
        self.dispatcher.routes_changed()
