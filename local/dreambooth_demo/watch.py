"""Follows a job and a model to their ends, one line whenever something changed."""

import time
from collections.abc import Callable
from typing import Any

from dreambooth_demo.kube import Kube


class JobFailed(RuntimeError):
    """The job or the model will not get there; the text is its condition."""


def job_line(status: dict[str, Any]) -> str:
    """One line on a DreamBoothJob's status. Pure."""
    line = status.get("phase", "Pending")
    progress = status.get("progress") or {}
    if progress.get("steps"):
        line += f"  {progress['step']}/{progress['steps']}"
        line += f"  loss {progress['loss']}" if progress.get("loss") else ""
        line += f"  {progress['imagesPerSecond']} images/s" if progress.get("imagesPerSecond") else ""
        line += f"  ETA {progress['etaSeconds']} s" if progress.get("etaSeconds") else ""
    return line


def _condition(resource: dict[str, Any], kind: str) -> dict[str, Any]:
    return next((c for c in resource.get("status", {}).get("conditions", []) if c["type"] == kind), {})


def wait_for_job(kube: Kube, namespace: str, name: str, say: Callable[[str], None], seconds: float) -> dict[str, float]:
    """Wait until the job is Complete; returns the seconds spent in each phase. Raises JobFailed."""
    deadline, last, phase, since = time.monotonic() + seconds, "", "Pending", time.monotonic()
    spent: dict[str, float] = {}
    while time.monotonic() < deadline:
        job = kube.get("dreamboothjob", name, namespace) or {}
        status = job.get("status", {})
        if (now := status.get("phase", "Pending")) != phase:
            spent[phase] = round(spent.get(phase, 0) + time.monotonic() - since, 1)
            phase, since = now, time.monotonic()
        if (line := job_line(status)) != last:
            say(line)
            last = line
        if _condition(job, "Complete").get("status") == "True":
            return spent
        failed = _condition(job, "Failed")
        if failed.get("status") == "True":
            raise JobFailed(f"{failed['reason']}: {failed['message']}")
        time.sleep(1)
    raise JobFailed(f"not finished after {seconds:.0f} s: {last}")


def wait_for_model(kube: Kube, namespace: str, name: str, say: Callable[[str], None], seconds: float) -> dict[str, Any]:
    """Wait until the model is Ready; returns it. Raises JobFailed."""
    deadline, last = time.monotonic() + seconds, ""
    while time.monotonic() < deadline:
        model = kube.get("personalizedmodel", name, namespace) or {}
        ready = _condition(model, "Ready")
        if (line := f"{ready.get('reason', 'Pending')} {ready.get('message', '')}".strip()) != last:
            say(line)
            last = line
        if ready.get("status") == "True":
            return model
        time.sleep(0.5)
    raise JobFailed(f"not ready after {seconds:.0f} s: {last}")
