import json
import urllib.error
import urllib.request

import pytest

from dreambooth_api.job import CheckpointStatus, Progress
from dreambooth_api.reasons import Phase, Reason
from dreambooth_api.result import Report
from dreambooth_trainer.device import Usage
from dreambooth_trainer.figures import Figures
from dreambooth_trainer.progress import Board, BoardServer, Console


@pytest.fixture
def served(context, small_job, tmp_path):
    board = Board(context(small_job(), tmp_path), Phase.TRAINING)
    server = BoardServer(board, 0)
    yield board, f"http://127.0.0.1:{server.port}"
    server.close()


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return answer.read().decode()


def test_progress_and_metrics_over_http(served) -> None:
    board, url = served
    board.resumed()
    board.advance(Progress(step=3, steps=10, percent=30, loss="0.5000", images_per_second="12.0", eta_seconds=7))
    board.committed(CheckpointStatus(step=2, uri="s3://b/x"))
    report = Report.model_validate_json(get(f"{url}/progress"))
    assert report.phase == Phase.TRAINING
    assert report.progress.step == 3
    assert report.progress.time is not None
    assert report.checkpoint is not None
    lines = dict(line.rsplit(" ", 1) for line in get(f"{url}/metrics").splitlines() if not line.startswith("#"))
    labels = '{job="small",namespace="tests"}'
    for name, value in {"step": 3, "loss": 0.5, "images_per_second": 12, "eta_seconds": 7, "resumes_total": 1}.items():
        assert float(lines[f"dreambooth_training_{name}{labels}"]) == value
    assert 0 <= float(lines[f"dreambooth_training_checkpoint_age_seconds{labels}"]) < 60


def test_what_steps_take_becomes_series(served) -> None:
    board, url = served
    for usage, gpu in ((Usage(5 * 2**30), (0, 0)), (Usage(7 * 2**30, True, 0.9), (7 * 2**30, 0.9))):
        board.measure(Figures(0.5, 1e-4, 12, 7, 0.2, 0.01, usage, 3))
        text = get(f"{url}/metrics")
        lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        found = {name.split("{")[0].removeprefix("dreambooth_training_"): float(v) for name, v in lines.items()}
        assert (found["gpu_memory_bytes"], found["gpu_utilisation_ratio"]) == gpu
        assert found["memory_bytes"] == usage.memory_bytes
        assert found["data_wait_seconds"] == 0.01


def test_every_series_is_documented(served, examples) -> None:
    text = (examples.parent / "docs" / "performance.md").read_text(encoding="utf-8")
    names = {line.split()[2] for line in get(f"{served[1]}/metrics").splitlines() if line.startswith("# HELP")}
    assert {name for name in names if not name.endswith("_created") and f"`{name}`" not in text} == set()


def test_other_paths(served) -> None:
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(f"{served[1]}/secrets")


def test_a_log_gets_few_lines_but_the_last(capsys: pytest.CaptureFixture) -> None:
    console = Console()
    for step in range(1, 101):
        console.step("step", step, 100, f"loss {step}")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 3
    assert lines[-1] == "step 100/100  100 %  loss 100"


def test_a_terminal_gets_a_bar(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TQDM_DISABLE", "1")
    console = Console(terminal=True)
    for step in (1, 2, 3):
        console.step("step", step, 3, "loss 1")
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "3/3" in shown.err


def test_other_ranks_are_silent(capsys: pytest.CaptureFixture) -> None:
    console = Console(terminal=True, silent=True)
    console.say("x")
    console.step("step", 1, 1)
    assert json.dumps(capsys.readouterr()) == '["", ""]'


def test_the_trouble_that_came_first_is_shown_as_long_as_it_lasts(served) -> None:
    board, url = served

    def shown() -> tuple[str, str | None]:
        report = Report.model_validate_json(get(f"{url}/progress"))
        return report.warning_reason, report.warning

    board.trouble(Reason.STORE_UNAVAILABLE, "the store fails")
    board.trouble(Reason.TRACKING_UNAVAILABLE, "MLflow is away")
    assert shown() == (Reason.STORE_UNAVAILABLE, "the store fails")
    board.trouble(Reason.STORE_UNAVAILABLE, None)
    assert shown() == (Reason.TRACKING_UNAVAILABLE, "MLflow is away")
    board.trouble(Reason.TRACKING_UNAVAILABLE, None)
    assert shown()[1] is None
