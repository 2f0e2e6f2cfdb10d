"""`dreambooth run` as a person says it: killed politely in the middle, said again, finished."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from dreambooth_api.artifact import Manifest
from dreambooth_api.exits import ExitCode
from dreambooth_api.parse import parse_job_file
from dreambooth_trainer.faults import SpecFault
from dreambooth_trainer.run import on_one_process, read_job


def command(job: Path, out: Path) -> list[str]:
    return [sys.executable, "-m", "dreambooth_trainer.run", str(job), "--out", str(out)]


def test_stopped_said_again_and_finished(tmp_path: Path, small_job, class_images: Path) -> None:
    import shutil

    from mlflow import MlflowClient

    job, out = tmp_path / "job.yaml", tmp_path / "out"
    body = small_job(training={"steps": 60, "batchSize": 1}, checkpoints={"everySteps": 50})
    job.write_text("kind: ConfigMap\n---\n" + yaml.safe_dump(body))
    shutil.copytree(class_images, out / "store" / "priors")
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    first = subprocess.Popen(command(job, out), env=env, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    for line in first.stdout:
        if line.startswith("step "):
            break
        assert time.monotonic() < deadline
    first.send_signal(signal.SIGTERM)
    rest = first.stdout.read()
    assert first.wait(60) == ExitCode.SAVED_ON_SIGTERM
    assert "asked to end: step" in rest
    assert not (out / "artifact").exists()

    second = subprocess.run(command(job, out), env=env, capture_output=True, text=True, timeout=240)
    assert second.returncode == ExitCode.OK, second.stderr
    assert "resumed at step" in second.stdout
    assert "step 60/60  100 %" in second.stdout
    manifest = Manifest.model_validate_json((out / "artifact" / "MANIFEST.json").read_text())
    assert set(manifest.files) == {"model.json", "pytorch_lora_weights.safetensors"}
    card = json.loads((out / "artifact" / "model.json").read_text())
    client = MlflowClient(f"sqlite:///{out}/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("tests").experiment_id])
    assert run.info.run_id == card["runId"]
    assert [m.step for m in client.get_metric_history(run.info.run_id, "loss")] == list(range(1, 61))
    assert run.data.params["training.batchSize"] == "1"
    assert run.data.params["digest.dataset"].startswith("sha256:")
    assert client.get_model_version_by_alias("tests.small", "champion").source.endswith(manifest.digest[7:23])


def test_a_job_of_several_ranks_takes_as_much_in_a_step(small_job) -> None:
    topology = {"nodes": 2, "processesPerNode": 2}
    cpu = on_one_process(parse_job_file(small_job(topology=topology))).spec
    assert (cpu.training.batch_size, cpu.training.gradient_accumulation, cpu.topology.world_size) == (8, 1, 1)
    gpu = on_one_process(parse_job_file(small_job(topology={**topology, "gpusPerNode": 2}))).spec
    assert (gpu.training.batch_size, gpu.training.gradient_accumulation) == (2, 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [("kind: ConfigMap", "expected one DreamBoothJob, found 0"), ("a: [", "cannot read"), (None, "cannot read")],
)
def test_files_that_hold_no_job(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "job.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SpecFault, match=message):
        read_job(path)


def test_the_example_job_is_good(examples: Path) -> None:
    job, metadata = read_job(examples / "robot" / "job.yaml")
    assert metadata["name"] == "robot"
    assert job.spec.topology.world_size == 2
