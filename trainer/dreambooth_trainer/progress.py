"""What the outside sees while a process works: `/progress`, `/metrics`, and lines in a log or a bar on a terminal."""

import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from dreambooth_api.conditions import now
from dreambooth_api.job import CheckpointStatus, Progress, RunStatus
from dreambooth_api.reasons import Phase, Reason
from dreambooth_api.result import Report
from dreambooth_trainer.context import Context
from dreambooth_trainer.figures import Figures

# A log gets a line at most so often, seconds; phases and the last step are always said.
LINE_EVERY = 5.0


class Metrics:
    """The Prometheus series of one training."""

    def __init__(self, namespace: str, job: str) -> None:
        self.registry = CollectorRegistry()
        labels = {"namespace": namespace, "job": job}

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"dreambooth_training_{name}", text, list(labels), registry=self.registry).labels(**labels)

        self.step = gauge("step", "Optimizer steps done.")
        self.steps = gauge("steps", "Optimizer steps in all.")
        self.loss = gauge("loss", "Mean loss of the last steps.")
        self.images_per_second = gauge("images_per_second", "Training pictures per second over all ranks.")
        self.eta = gauge("eta_seconds", "Seconds to the last step.")
        self.checkpoint_age = gauge("checkpoint_age_seconds", "Seconds since the newest checkpoint was committed.")
        self.checkpoint_stall = Histogram(
            "dreambooth_training_checkpoint_stall_seconds",
            "How long training waited for a checkpoint to be copied.",
            list(labels),
            buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 10, 60),
            registry=self.registry,
        ).labels(**labels)
        self.data_wait = gauge("data_wait_seconds", "Seconds of a step spent waiting for its samples.")
        self.memory = gauge("memory_bytes", "Peak of rank 0's memory, resident in RAM or of its GPU.")
        self.gpu_memory = gauge("gpu_memory_bytes", "Peak of the GPU memory allocated by rank 0; 0 on a CPU.")
        self.gpu_busy = gauge("gpu_utilisation_ratio", "Share of time rank 0's GPU was busy; 0 on a CPU or unknown.")
        self.resumes = Counter(
            "dreambooth_training_resumes", "Times the training went on.", list(labels), registry=self.registry
        ).labels(**labels)


class Board:
    """The state that is shown; written by the work, read by the server's threads."""

    def __init__(self, ctx: Context, phase: Phase) -> None:
        self._lock = threading.Lock()
        self._report = Report(phase=phase)
        self._troubles: dict[Reason, str] = {}
        self.metrics = Metrics(ctx.namespace, ctx.name)
        self._committed = time.time()
        self.resumes = 0
        self.metrics.checkpoint_age.set_function(lambda: self.checkpoint_age)

    @property
    def report(self) -> Report:
        """What `/progress` shows."""
        with self._lock:
            return self._report

    def set(self, **fields: object) -> None:
        """Change fields of the report."""
        with self._lock:
            self._report = self._report.model_copy(update=fields)

    def trouble(self, reason: Reason, message: str | None) -> None:
        """Show what is amiss but does not stop the work; None: it is over."""
        with self._lock:
            self._troubles.pop(reason, None)
            if message:
                self._troubles[reason] = message
            # The one that came first is shown as long as it lasts.
            first = next(iter(self._troubles.items()), (Reason.TRACKING_UNAVAILABLE, None))
            self._report = self._report.model_copy(update={"warning_reason": first[0], "warning": first[1]})

    def advance(self, progress: Progress) -> None:
        """Show how far the work is."""
        progress = progress.model_copy(update={"time": now()})
        self.set(progress=progress)
        self.metrics.step.set(progress.step)
        self.metrics.steps.set(progress.steps)
        for gauge, value in (
            (self.metrics.loss, progress.loss),
            (self.metrics.images_per_second, progress.images_per_second),
            (self.metrics.eta, progress.eta_seconds),
        ):
            if value is not None:
                gauge.set(float(value))

    @property
    def checkpoint_age(self) -> float:
        """Seconds since the newest checkpoint was committed, or since the start."""
        return time.time() - self._committed

    def measure(self, figures: Figures) -> None:
        """Show what the last steps took."""
        usage = figures.usage
        self.metrics.data_wait.set(figures.data_wait_seconds)
        self.metrics.memory.set(usage.memory_bytes)
        self.metrics.gpu_memory.set(usage.memory_bytes if usage.on_gpu else 0)
        self.metrics.gpu_busy.set(usage.busy or 0)

    def resumed(self) -> None:
        """Count that the training went on from a checkpoint."""
        self.resumes += 1
        self.metrics.resumes.inc()

    def committed(self, checkpoint: CheckpointStatus) -> None:
        """Show the newest checkpoint."""
        self._committed = time.time()
        self.set(checkpoint=checkpoint)

    def stalled(self, seconds: float) -> None:
        """Count a wait for a checkpoint's copy."""
        self.metrics.checkpoint_stall.observe(seconds)

    def tracked(self, run: RunStatus) -> None:
        """Show the MLflow run."""
        self.set(run=run)


class BoardServer:
    """Serves a board over HTTP from threads of its own."""

    def __init__(self, board: Board, port: int) -> None:
        """Listen on `port` (0: any free one)."""

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path.split("?")[0] == "/progress":
                    text = json.dumps(board.report.to_dict()).encode()
                    self._answer(200, text, "application/json")
                elif self.path.split("?")[0] == "/metrics":
                    self._answer(200, generate_latest(board.metrics.registry), CONTENT_TYPE_LATEST)
                else:
                    self._answer(404, b"there are /progress and /metrics\n", "text/plain")

            def _answer(self, status: int, body: bytes, kind: str) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Scrapes are not worth a line."""

        self._server = ThreadingHTTPServer(("", port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, name="progress", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()


class Console:
    """Lines for `kubectl logs`, or a bar where a person watches; `silent` for the other ranks."""

    def __init__(self, terminal: bool = False, silent: bool = False) -> None:
        self.terminal, self.silent = terminal and not silent, silent
        self._bar: Any = None
        self._last = 0.0

    def say(self, text: str) -> None:
        """One line."""
        if self.silent:
            return
        self.close()
        print(text, flush=True)

    def step(self, what: str, done: int, total: int, details: str = "") -> None:
        """`done` of `total` things are done."""
        if self.silent:
            return
        if self.terminal:
            self._draw_bar(what, done, total, details)
        elif done >= total or time.monotonic() - self._last >= LINE_EVERY:
            self._last = time.monotonic()
            percent = 100 * done // max(1, total)
            print(f"{what} {done}/{total}  {percent} %  {details}".rstrip(), flush=True)

    def _draw_bar(self, what: str, done: int, total: int, details: str) -> None:
        from tqdm import tqdm

        if self._bar is None:
            # `disable` is said, because for libraries' bars the environment says the opposite.
            self._bar = tqdm(total=total, initial=done, desc=what, file=sys.stderr, dynamic_ncols=True, disable=False)
        bar = self._bar
        bar.set_postfix_str(details, refresh=False)
        bar.update(done - bar.n)
        if done >= total:
            self.close()

    def close(self) -> None:
        """End the bar, if there is one."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
