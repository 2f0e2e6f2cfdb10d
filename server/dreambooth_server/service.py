"""What one server process holds: its state, from loading over ready to draining, and what serves requests."""

import logging
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from pathlib import Path
from typing import Any

from dreambooth_api.reasons import Reason
from dreambooth_server import compiling, libraries
from dreambooth_server.artifacts import Artifact, fetch_artifact
from dreambooth_server.bases import fetch_base, open_base
from dreambooth_server.disk import hold
from dreambooth_server.drawing import Drawing, Refused
from dreambooth_server.engine import Engine
from dreambooth_server.errors import ApiError
from dreambooth_server.faults import LoadFault
from dreambooth_server.library import Library
from dreambooth_server.metrics import Metrics, make_metrics
from dreambooth_server.queue import Line
from dreambooth_server.settings import BASE_MODEL, Settings
from dreambooth_server.start import Start
from dreambooth_server.subjects import Fixed, Subjects

log = logging.getLogger(__name__)
_RETRY_LOADING = "5"


class State(StrEnum):
    """Where the process is in its life."""

    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"


class Service:
    """The one stateful object; `app` reads it, `load` and the process's end change it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.state = State.LOADING
        self.metrics: Metrics = make_metrics()
        self.library: Library | None = None
        self.base_digest = ""
        """`sha256:<hex>` of the loaded base."""
        self._engine: Engine | None = None
        self._line: Line | None = None
        self._subjects: Subjects | None = None

    def load(self) -> None:
        """Fetch, verify and load everything, draw once to warm up, then be ready. Raises LoadFault."""
        settings, start = self.settings, Start(self.metrics)
        places = settings.places
        if places.lasting and not places.lasts:
            log.warning("%s cannot be written by user %d: downloads end with this pod", places.lasting, os.getuid())
        start.passed("process")
        if settings.power.compile:
            compiling.settle(settings.places)
        # Before anything that takes long: an artifact that is unfit ends the process at once.
        artifacts = _fetch(settings)
        start.passed("artifact")
        # torch and diffusers take seconds to import: they do while the base is fetched and verified.
        with ThreadPoolExecutor(1) as importer:
            studio = importer.submit(libraries.load, settings.power.compile)
            base, self.base_digest = _base(settings, artifacts)
            start.passed("base")
        start.passed("libraries")
        engine = studio.result().open_studio(
            base, artifacts, power=settings.power, room=settings.room, metrics=self.metrics
        )
        start.passed("weights")
        if settings.power.compile:
            engine.compile()
            start.passed("compile")
        _warm_up(engine)
        start.passed("picture")
        if settings.room is not None:
            self.library = Library(engine, self.base_digest, settings.places, self.metrics)
        self.open(engine)
        subjects = ", ".join(artifacts) or "a pool"
        log.info("ready after %.1f s on %s: %s (%s)", start.seconds, engine.abilities.device, subjects, start)

    def open(self, engine: Engine) -> None:
        """Serve with `engine` from now on."""
        self._engine = engine
        self._subjects = self.library or Fixed(engine)
        self._line = Line(engine, self.settings.waiting, self.metrics.queue_seconds.observe, self.settings.patience)
        for name, artifact in engine.artifacts.items():
            self.metrics.loaded.labels(name, artifact.digest).set(1)
        self.metrics.loaded.labels(BASE_MODEL, self.base_digest).set(1)
        if self.state is State.LOADING:
            self.state = State.READY

    @property
    def subjects(self) -> Subjects:
        """Finds what a request is for. Raises ApiError 503 while it is loading."""
        if self._subjects is None:
            raise _not_yet()
        return self._subjects

    @property
    def engine(self) -> Engine:
        """What draws. Raises ApiError 503 while it is loading."""
        if self._engine is None:
            raise _not_yet()
        return self._engine

    @property
    def line(self) -> Line:
        """The way to the engine. Raises ApiError 503 while it is loading."""
        if self._line is None:
            raise _not_yet()
        return self._line

    def drain(self) -> None:
        """Be unready from now on; requests are still served."""
        self.state = State.DRAINING

    def close(self) -> None:
        """Finish what waits; nothing may be submitted any more."""
        if self._line is not None:
            self._line.close()
        if self.library is not None:
            self.library.close()


def _not_yet() -> ApiError:
    return ApiError(503, "The model is still being loaded.", "loading", headers={"Retry-After": _RETRY_LOADING})


def _fetch(settings: Settings) -> Mapping[str, Artifact]:
    """All subjects by name. Raises LoadFault when they cannot share a base or a name."""
    found: dict[str, Artifact] = {}
    for wanted in settings.subjects:
        artifact = fetch_artifact(wanted, settings.places)
        if settings.places.cache in artifact.folder.parents:
            hold(artifact.folder)
        if artifact.name in found:
            raise LoadFault(Reason.ARTIFACT_INVALID, f"two subjects are named {artifact.name!r}")
        found[artifact.name] = artifact
    digests = {artifact.card.base.digest for artifact in found.values()}
    if len(digests) > 1:
        message = "the subjects were made from different bases: serve those of each base in a process of its own"
        raise LoadFault(Reason.BASE_MODEL_INVALID, message)
    return found


def _base(settings: Settings, artifacts: Mapping[str, Artifact]) -> tuple[Path, str]:
    """The base's folder and digest: that of the subjects, or a pool's own. Raises LoadFault."""
    for artifact in artifacts.values():
        return fetch_base(artifact.card.base, settings.base, settings.places), artifact.card.base.digest
    if settings.base is None:
        raise LoadFault(Reason.BASE_MODEL_NOT_FOUND, "a pool has no subject that knows its base: say it with --base")
    return open_base(settings.base, settings.revision, settings.places)


def _warm_up(engine: Any) -> None:
    """One picture of each model, so that the first request finds everything in place. Raises LoadFault."""
    side = engine.abilities.resolution
    prompts = {name: artifact.card.prompt for name, artifact in engine.artifacts.items()} or {BASE_MODEL: "a photo"}
    try:
        for name, prompt in prompts.items():
            engine.draw([Drawing(name, prompt, "", 0, side, side, 2, 7.5)])
    except Refused as e:
        raise LoadFault(Reason.ARTIFACT_INVALID, f"the first picture failed: {e}") from e
