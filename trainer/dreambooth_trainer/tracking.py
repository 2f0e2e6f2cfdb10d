"""MLflow: one run over all restarts, which training never waits for.

Everything to be tracked goes through a queue to a thread that talks to MLflow in order. While MLflow is away the
queue grows and the thread tries again; at the end it is given a bounded time to catch up.
"""

import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

from PIL import Image

from dreambooth_api.job import ArtifactStatus, RunStatus
from dreambooth_trainer.context import Tracking

UID_TAG = "dreambooth.job.uid"
DIGEST_TAG = "dreambooth.digest"
ALIAS = "champion"
_SQLITE = "sqlite:///"
# Step, values, time in milliseconds.
Entry = tuple[int, dict[str, float], int]


class Tracker(Protocol):
    """What can be tracked; none of it waits or fails."""

    def params(self, values: dict[str, str]) -> None: ...
    def tags(self, values: dict[str, str]) -> None: ...
    def metrics(self, step: int, values: dict[str, float], stamp: int | None = None) -> None: ...
    def unsent(self) -> list[Entry]: ...
    def run_id(self, wait: float) -> str | None: ...
    def image(self, image: Image.Image, path: str) -> None: ...
    def register(self, model: str, artifact: ArtifactStatus) -> None: ...
    def finish(self, status: str, wait: float) -> bool: ...


class NullTracker:
    """Tracks nothing: for the other ranks, and where there is no MLflow."""

    def params(self, values: dict[str, str]) -> None:
        """Nothing."""

    def tags(self, values: dict[str, str]) -> None:
        """Nothing."""

    def metrics(self, step: int, values: dict[str, float], stamp: int | None = None) -> None:
        """Nothing."""

    def unsent(self) -> list[Entry]:
        """Nothing."""
        return []

    def run_id(self, wait: float) -> str | None:
        """None."""
        return None

    def image(self, image: Image.Image, path: str) -> None:
        """Nothing."""

    def register(self, model: str, artifact: ArtifactStatus) -> None:
        """Nothing."""

    def finish(self, status: str, wait: float) -> bool:
        """Nothing is left over."""
        return True


@dataclass(frozen=True)
class RunName:
    """What identifies the run: `uid` over restarts, the others for people."""

    experiment: str
    name: str
    uid: str


class MlflowTracker:
    """Tracks to an MLflow server or database from a thread of its own."""

    def __init__(
        self,
        target: Tracking,
        run: RunName,
        on_run: Callable[[RunStatus], None] = lambda run: None,
        on_away: Callable[[str | None], None] = lambda warning: None,
        pause: float = 5.0,
    ) -> None:
        """`on_run` hears of the run once there is one, `on_away` of MLflow's absence and (None) return.

        `pause`: between attempts while MLflow is away, seconds.
        """
        self.target, self.run, self.pause = target, run, pause
        self._on_run, self._on_away = on_run, on_away
        self._queue: queue.Queue[tuple[str, Callable[[], None]] | None] = queue.Queue()
        self._unsent: deque[Entry] = deque()
        self._client: Any = None
        self._run_id = ""
        # Set once the run is there, or MLflow is known to be away.
        self._answered = threading.Event()
        # The last step of each metric that is there: a resumed run measures again what it had, and it is not repeated.
        self._logged_to: dict[str, int] = {}
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="tracking", daemon=True)
        self._thread.start()

    def params(self, values: dict[str, str]) -> None:
        """Parameters; a restart states them again, which MLflow allows as long as they are the same."""

        def send() -> None:
            from mlflow.entities import Param

            items = [Param(key, value[:6000]) for key, value in values.items()]
            for start in range(0, len(items), 100):
                self._client.log_batch(self._run_id, params=items[start : start + 100])

        self._put("params", send)

    def tags(self, values: dict[str, str]) -> None:
        """Tags."""

        def send() -> None:
            for key, value in values.items():
                self._client.set_tag(self._run_id, key, value)

        self._put("tags", send)

    def metrics(self, step: int, values: dict[str, float], stamp: int | None = None) -> None:
        """Numbers of one step, stamped with the time they were measured (milliseconds; default: now)."""
        entry = (step, values, int(time.time() * 1000) if stamp is None else stamp)
        self._unsent.append(entry)

        def send() -> None:
            from mlflow.entities import Metric

            fresh = {k: v for k, v in values.items() if step > self._logged_to.get(k, -1)}
            items = [Metric(key, value, entry[2], step) for key, value in fresh.items()]
            if items:
                self._client.log_batch(self._run_id, metrics=items)
            self._unsent.remove(entry)

        self._put("metrics", send)

    def unsent(self) -> list[Entry]:
        """Numbers that MLflow has not taken yet: a checkpoint keeps them, so that a kill does not lose them."""
        return list(self._unsent)

    def run_id(self, wait: float) -> str | None:
        """The run's id; None while there is none. It is waited for, at most `wait` seconds, unless MLflow is away."""
        self._answered.wait(wait)
        return self._run_id or None

    def image(self, image: Image.Image, path: str) -> None:
        """A picture among the run's artifacts."""
        self._put("image", lambda: self._client.log_image(self._run_id, image, path))

    def register(self, model: str, artifact: ArtifactStatus) -> None:
        """The artifact as a version of `model`, with the alias; a version of the same digest is not made twice."""
        self._put("register", lambda: self._register(model, artifact))

    def finish(self, status: str, wait: float) -> bool:
        """Close the run as `status` (FINISHED, FAILED, KILLED) after all before; whether that came through.

        Gives MLflow `wait` seconds to take what is left.
        """
        self._put("finish", lambda: self._client.set_terminated(self._run_id, status))
        self._queue.put(None)
        self._thread.join(wait)
        done = not self._thread.is_alive()
        self._closing.set()
        if not done:
            print(f"tracking: MLflow did not take {self._queue.qsize()} entries within {wait:.0f} s", flush=True)
        return done

    def _put(self, what: str, send: Callable[[], None]) -> None:
        self._queue.put((what, send))

    def _work(self) -> None:
        """The thread: connect, then send in order, each until it is taken."""
        self._until_taken("connect", self._connect)
        self._answered.set()
        while (item := self._queue.get()) is not None and not self._closing.is_set():
            self._until_taken(*item)

    def _until_taken(self, what: str, send: Callable[[], None]) -> None:
        away = False
        while not self._closing.is_set():
            try:
                send()
                break
            except Exception as error:  # This thread's edge: nothing that MLflow does may end a training.
                if not may_pass(error):
                    print(f"tracking: {what} was refused: {str(error).splitlines()[0][:300]}", flush=True)
                    break
                if not away:
                    away = True
                    self._answered.set()
                    self._on_away(f"MLflow is away: {type(error).__name__}; training goes on, entries are kept")
                    print(f"tracking: MLflow is away ({type(error).__name__}); entries are kept", flush=True)
                self._closing.wait(self.pause)
        if away and not self._closing.is_set():
            self._on_away(None)
            print("tracking: MLflow is back", flush=True)

    def _connect(self) -> None:
        """Find or make experiment and run."""
        # The queue retries; the client's own minutes of back-off would only hide that MLflow is away.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "15")
        if self.target.token:
            os.environ["MLFLOW_TRACKING_TOKEN"] = self.target.token
        from mlflow import MlflowClient

        make_database(self.target.uri or "")
        client = MlflowClient(self.target.uri)
        experiment = client.get_experiment_by_name(self.run.experiment)
        experiment_id = (
            experiment.experiment_id
            if experiment
            else client.create_experiment(self.run.experiment, artifact_location=self.target.artifact_location)
        )
        found = client.search_runs([experiment_id], f"tags.`{UID_TAG}` = '{self.run.uid}'", max_results=1)
        if found:
            self._run_id = found[0].info.run_id
            client.update_run(self._run_id, status="RUNNING")
            for key in found[0].data.metrics:
                steps = (metric.step for metric in client.get_metric_history(self._run_id, key))
                self._logged_to[key] = max(steps, default=-1)
        else:
            created = client.create_run(experiment_id, tags={UID_TAG: self.run.uid}, run_name=self.run.name)
            self._run_id = created.info.run_id
        self._client = client
        uri = self.target.uri or ""
        url = f"{uri.rstrip('/')}/#/experiments/{experiment_id}/runs/{self._run_id}" if uri.startswith("http") else None
        self._on_run(RunStatus(experiment=self.run.experiment, id=self._run_id, url=url))

    def _register(self, model: str, artifact: ArtifactStatus) -> None:
        from mlflow.exceptions import MlflowException

        client = self._client
        try:
            client.create_registered_model(model)
        except MlflowException as e:
            if e.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        versions = client.search_model_versions(f"name='{model}'")
        same = [v for v in versions if v.tags.get(DIGEST_TAG) == artifact.digest]
        version = (
            same[0]
            if same
            else client.create_model_version(
                model, artifact.uri, run_id=self._run_id, tags={DIGEST_TAG: artifact.digest}
            )
        )
        client.set_registered_model_alias(model, ALIAS, version.version)


def make_database(uri: str) -> None:
    """A new SQLite database takes its name when it is whole: a kill while its tables are made leaves none that MLflow
    could not open any more."""
    path = Path(uri.removeprefix(_SQLITE))
    if not uri.startswith(_SQLITE) or path.exists():
        return
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    with TemporaryDirectory(prefix=".mlflow-", dir=path.parent) as aside:
        making = Path(aside) / path.name
        SqlAlchemyStore(f"{_SQLITE}{making}", str(path.parent)).engine.dispose()
        making.rename(path)


def may_pass(error: BaseException) -> bool:
    """Whether MLflow may take the same entry later: it is away, or an inner fault of its."""
    from mlflow.exceptions import MlflowException, RestException

    if isinstance(error, RestException | MlflowException):
        return error.error_code in ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED") or (
            not isinstance(error, RestException) and error.get_http_status_code() >= 500
        )
    return isinstance(error, OSError) or type(error).__module__.startswith(("requests", "urllib3", "sqlalchemy"))


def flat(prefix: str, value: object) -> dict[str, str]:
    """Nested values as MLflow's flat parameters: `training.steps` and so on."""
    if isinstance(value, dict):
        return {k: v for key, inner in value.items() for k, v in flat(f"{prefix}.{key}".lstrip("."), inner).items()}
    return {prefix: str(value)}
