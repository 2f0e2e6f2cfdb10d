"""The scores of a job's checkpoints, kept in the store over restarts: which is the best, and when to stop.

Decisions are pure functions of the scores, so that a run that was killed decides as one that was not.
"""

import json
from collections.abc import Mapping

from dreambooth_api.job import Choice, Gate
from dreambooth_api.names import SCORES
from dreambooth_trainer.scoring import Measures, below_gate
from dreambooth_trainer.store import Missing, Store


def fidelity(measures: Measures) -> float | None:
    """What checkpoints are compared by: DINO's likeness to the held-out pictures, else CLIP's; None without either."""
    return measures.get("dino", measures.get("clip_i"))


def best(scores: Mapping[int, Measures], gate: Gate, choice: Choice = Choice.BEST) -> int | None:
    """The step to publish, of the scored ones: those that pass the gate first, then by fidelity, then the later.

    None when there is none. Where nothing is measured on held-out pictures, as with `Last`, it is the last.
    """
    if not scores:
        return None
    if choice == Choice.LAST or any(fidelity(measures) is None for measures in scores.values()):
        return max(scores)
    return max(scores, key=lambda step: (below_gate(gate, scores[step]) is None, fidelity(scores[step]), step))


def stops(scores: Mapping[int, Measures], step: int, patience: int | None) -> bool:
    """Whether fidelity up to `step` has not risen above its best for `patience` scored checkpoints."""
    found = [(at, fidelity(measures)) for at, measures in sorted(scores.items()) if at <= step]
    values = [value for _, value in found if value is not None]
    if patience is None or len(values) <= patience or len(values) < len(found):
        return False
    return max(values[-patience:]) <= max(values[:-patience])


class Evaluations:
    """Scores by step in the job's folder of the store; those made with other settings do not count."""

    def __init__(self, store: Store, key: str) -> None:
        """`key`: of all that a score follows from beside the weights."""
        self._store, self._key = store, key
        self.scores: dict[int, Measures] = {}
        # The step after which training was ended early.
        self.stopped_at: int | None = None
        try:
            kept = json.loads(store.read(SCORES))
            if kept["key"] == key:
                self.scores = {int(step): dict(measures) for step, measures in kept["scores"].items()}
                self.stopped_at = kept["stoppedAt"]
        except (Missing, ValueError, KeyError, TypeError, AttributeError):
            # There are none, or none that can be read: they are measured again.
            self.scores = {}

    def add(self, step: int, measures: Measures) -> None:
        """Keep the scores of `step`."""
        self.scores[step] = measures
        self._write()

    def stop(self, step: int) -> None:
        """Keep that training ends after `step`."""
        self.stopped_at = step
        self._write()

    def _write(self) -> None:
        kept = {"key": self._key, "scores": self.scores, "stoppedAt": self.stopped_at}
        self._store.write(SCORES, json.dumps(kept, indent=1).encode())
