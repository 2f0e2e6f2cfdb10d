"""The demo's progress lines."""

from dreambooth_demo.watch import job_line


def test_a_line_shows_phase_step_loss_speed_and_eta():
    progress = {"step": 12, "steps": 90, "loss": "0.2345", "imagesPerSecond": "31.0", "etaSeconds": 40}
    line = job_line({"phase": "Training", "progress": progress})
    assert line == "Training  12/90  loss 0.2345  31.0 images/s  ETA 40 s"


def test_a_job_that_nobody_has_looked_at_yet_is_pending():
    assert job_line({}) == "Pending"
