"""Against MLflow's own server, started, stopped and started again on one database."""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from dreambooth_api.job import ArtifactStatus, RunStatus
from dreambooth_trainer.context import Tracking
from dreambooth_trainer.tracking import ALIAS, DIGEST_TAG, MlflowTracker, RunName, flat, make_database

NAME = RunName("tests", "robot", "uid-1")


class Server:
    """MLflow's HTTP application in a thread of this process, on a fixed port and a database in a folder."""

    def __init__(self, folder: Path, port: int) -> None:
        from mlflow.server import app, handlers

        self.port = port
        self.app, self.uri = app, f"http://127.0.0.1:{self.port}"
        handlers.initialize_backend_stores(f"sqlite:///{folder}/mlflow.db", None, f"file://{folder}/artifacts")
        self._http = None

    def start(self) -> None:
        from werkzeug.serving import make_server

        # What any thread is starting just now holds the closed socket until it has become another program.
        again = Retrying(stop=stop_after_delay(10), wait=wait_fixed(0.1), retry=retry_if_exception_type(SystemExit))
        self._http = again(make_server, "127.0.0.1", self.port, self.app, threaded=True)
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def stop(self) -> None:
        if self._http is not None:
            self._http.shutdown()
            self._http.server_close()
            self._http = None


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, free_port) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("mlflow")
    os.environ["MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE"] = "true"
    server = Server(folder, free_port())
    yield server
    server.stop()


@pytest.fixture
def client(server: Server):
    from mlflow import MlflowClient

    return MlflowClient(server.uri)


def tracker(server: Server, name: RunName = NAME, **heard) -> MlflowTracker:
    return MlflowTracker(Tracking(server.uri), name, pause=0.2, **heard)


def losses(client, run_id: str) -> list[tuple[int, float]]:
    return [(m.step, m.value) for m in client.get_metric_history(run_id, "loss")]


def test_away_at_first_it_catches_up_in_order(server: Server, client) -> None:
    heard: list[str | None] = []
    runs: list[RunStatus] = []
    tracked = tracker(server, on_away=heard.append, on_run=runs.append)
    for step in range(1, 6):
        tracked.metrics(step, {"loss": 1 / step})
    tracked.params({"training.steps": "5"})
    deadline = time.monotonic() + 20
    while not heard:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert heard[0] is not None
    server.start()
    tracked.image(Image.new("RGB", (8, 8), "red"), "validation/step-000005.png")
    assert tracked.finish("FINISHED", wait=60)
    assert heard[-1] is None
    assert tracked.unsent() == []
    run = client.get_run(runs[0].id)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "robot"
    assert run.data.params == {"training.steps": "5"}
    assert losses(client, run.info.run_id) == [(step, pytest.approx(1 / step)) for step in range(1, 6)]
    assert client.list_artifacts(run.info.run_id, "validation")[0].path == "validation/step-000005.png"
    assert runs[0].url == f"{server.uri}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"


def test_a_restart_goes_on_in_the_same_run_without_doubled_steps(server: Server, client) -> None:
    server.stop()
    server.start()
    name, runs = RunName("tests", "restarted", "uid-2"), []
    for steps in (range(1, 5), range(3, 7)):  # Resumed from a checkpoint of step 2, after 4 had been logged.
        tracked = tracker(server, name, on_run=runs.append)
        tracked.params({"a": "1"})
        for step in steps:
            tracked.metrics(step, {"loss": float(step), "loss_prior": float(step)})
            if step % 2 == 0 and (step < 4 or steps[0] == 3):  # The kill came before the score of step 4.
                tracked.metrics(step, {"score_dino": step / 10})
        assert tracked.finish("KILLED", wait=60)
    assert runs[0].id == runs[1].id
    for key, expected in (("loss_prior", [1, 2, 3, 4, 5, 6]), ("score_dino", [2, 4, 6])):
        assert [m.step for m in client.get_metric_history(runs[0].id, key)] == expected
    assert [step for step, _ in losses(client, runs[0].id)] == [1, 2, 3, 4, 5, 6]


def test_the_artifact_becomes_one_version_with_an_alias(server: Server, client) -> None:
    server.stop()
    server.start()
    artifact = ArtifactStatus(uri="s3://bucket/models/tests/robot/abc", digest="sha256:" + "a" * 64)
    for _ in range(2):
        tracked = tracker(server)
        tracked.register("tests.robot", artifact)
        assert tracked.finish("FINISHED", wait=60)
    (version,) = client.search_model_versions("name='tests.robot'")
    assert version.source == artifact.uri
    assert version.tags[DIGEST_TAG] == artifact.digest
    assert client.get_model_version_by_alias("tests.robot", ALIAS).version == version.version


def test_what_mlflow_refuses_does_not_block_the_rest(server: Server, client, capsys: pytest.CaptureFixture) -> None:
    server.stop()
    server.start()
    runs: list[RunStatus] = []
    tracked = tracker(server, RunName("tests", "refused", "uid-3"), on_run=runs.append)
    tracked.params({"a": "1"})
    tracked.params({"a": "2"})
    tracked.metrics(1, {"loss": 1.0})
    assert tracked.finish("FINISHED", wait=60)
    assert losses(client, runs[0].id) == [(1, 1.0)]
    assert "params was refused" in capsys.readouterr().out


def test_the_run_is_waited_for_unless_mlflow_is_away(server: Server) -> None:
    server.stop()
    away: list[str | None] = []
    tracked = tracker(server, RunName("tests", "early", "uid-5"), on_away=away.append)
    assert tracked.run_id(wait=60) is None
    assert len(away) == 1
    server.start()
    assert tracked.finish("FINISHED", wait=60)
    again = tracker(server, RunName("tests", "early", "uid-5"))
    assert again.run_id(wait=60) == tracked.run_id(wait=0)
    assert again.run_id(wait=0)
    assert again.finish("FINISHED", wait=60)


def test_the_end_is_bounded_when_mlflow_stays_away(server: Server) -> None:
    server.stop()
    tracked = tracker(server, RunName("tests", "away", "uid-4"))
    tracked.metrics(1, {"loss": 1.0})
    began = time.monotonic()
    assert not tracked.finish("FINISHED", wait=1.0)
    # Less than one request of MLflow's client may take.
    assert time.monotonic() - began < 15
    assert [(step, values) for step, values, _ in tracked.unsent()] == [(1, {"loss": 1.0})]


def test_parameters_are_flat() -> None:
    nested = {"training": {"steps": 3, "flip": False}, "prompts": ["a", "b"]}
    assert flat("", nested) == {"training.steps": "3", "training.flip": "False", "prompts": "['a', 'b']"}


def test_a_kill_while_the_database_is_made_leaves_none_that_cannot_be_opened(tmp_path: Path, monkeypatch) -> None:
    """The tables are made one after the other: what dies between two of them must not be taken up again."""
    from mlflow import MlflowClient
    from mlflow.store.db import utils

    class Killed(BaseException):
        pass

    def half(engine) -> None:
        with engine.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE runs (run_uuid VARCHAR(32) NOT NULL)")
        raise Killed

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setattr(utils, "_initialize_tables", half)
    with pytest.raises(Killed):
        make_database(uri)
    monkeypatch.undo()
    assert not (tmp_path / "mlflow.db").exists()
    again = MlflowTracker(Tracking(uri), NAME, pause=0.2)
    again.metrics(1, {"loss": 0.5})
    assert again.finish("FINISHED", 120)
    (run,) = MlflowClient(uri).search_runs([MlflowClient(uri).get_experiment_by_name("tests").experiment_id])
    assert run.data.metrics["loss"] == 0.5
