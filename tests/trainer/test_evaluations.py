import pytest

from dreambooth_api.job import Choice, Gate
from dreambooth_trainer.evaluations import Evaluations, best, stops
from dreambooth_trainer.store import FolderStore


def by_dino(*values: float) -> dict[int, dict[str, float]]:
    """Scores of steps 10, 20, …"""
    return {10 * (i + 1): {"dino": value, "clip_i": -value} for i, value in enumerate(values)}


def test_the_best_is_the_most_like_the_held_out_pictures() -> None:
    assert best({}, Gate()) is None
    assert best(by_dino(0.2, 0.7, 0.5), Gate()) == 20
    assert best(by_dino(0.2, 0.7, 0.7), Gate()) == 30
    assert best(by_dino(0.2, 0.7, 0.5), Gate(), Choice.LAST) == 30
    assert best({10: {"clip_i": 0.6}, 20: {"clip_i": 0.5}}, Gate()) == 10


def test_what_passes_the_gate_goes_before_what_is_only_more_alike() -> None:
    scores = {10: {"dino": 0.6, "div": 0.9}, 20: {"dino": 0.9, "div": 0.1}}
    assert best(scores, Gate()) == 20
    assert best(scores, Gate(div=0.5)) == 10
    assert best(scores, Gate(div=0.95)) == 20


def test_without_held_out_pictures_it_is_the_last() -> None:
    assert best({10: {"clip_t": 0.9}, 20: {"clip_t": 0.1}}, Gate()) == 20


@pytest.mark.parametrize(
    ("values", "patience", "stop_at"),
    [
        ((0.1, 0.5, 0.4, 0.3), 2, 40),
        ((0.1, 0.5, 0.4, 0.6, 0.5), 2, None),
        ((0.5, 0.4), 1, 20),
        ((0.5, 0.5), 1, 20),
        ((0.5, 0.4, 0.3), None, None),
        ((0.5,), 1, None),
    ],
)
def test_early_stop(values: tuple[float, ...], patience: int | None, stop_at: int | None) -> None:
    scores = by_dino(*values)
    assert next((step for step in sorted(scores) if stops(scores, step, patience)), None) == stop_at


def test_scores_outlive_a_restart_and_other_settings_begin_anew(tmp_path) -> None:
    store = FolderStore(tmp_path)
    first = Evaluations(store, "key")
    first.add(10, {"dino": 0.5})
    first.add(20, {"dino": 0.4})
    first.stop(20)
    again = Evaluations(store, "key")
    assert (again.scores, again.stopped_at) == ({10: {"dino": 0.5}, 20: {"dino": 0.4}}, 20)
    assert Evaluations(store, "other").scores == {}
    store.write("scores.json", b"{")
    assert (Evaluations(store, "key").scores, Evaluations(store, "key").stopped_at) == ({}, None)
