"""Which subject a request is for, where the subjects are fixed: one of an endpoint's own, or of `dreambooth serve`."""

from collections.abc import Mapping
from typing import Protocol

from dreambooth_api.names import HEADER_MODEL
from dreambooth_server.catalog import Wanted, find_model
from dreambooth_server.engine import Engine
from dreambooth_server.settings import BASE_MODEL


class Subjects(Protocol):
    """Finds what a request is for."""

    async def find(self, headers: Mapping[str, str], model: str | None) -> Wanted:
        """The subject of a request with `headers` and the body's `model`. Raises ApiError."""

    def label(self, wanted: Wanted) -> str:
        """What metrics call it."""


class Fixed:
    """Subjects that were there from the start."""

    def __init__(self, engine: Engine) -> None:
        self._artifacts = engine.artifacts

    async def find(self, headers: Mapping[str, str], model: str | None) -> Wanted:
        if HEADER_MODEL in headers and model != BASE_MODEL:
            # The gateway has chosen this replica for the subject, whatever the client calls it.
            model = None
        name = find_model(self._artifacts, model)
        return Wanted(name, self._artifacts.get(name) or next(iter(self._artifacts.values())))

    def label(self, wanted: Wanted) -> str:
        return wanted.model
