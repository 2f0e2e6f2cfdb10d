"""What a pod tells the operator fits into a termination message, and comes out of it as it went in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreambooth_api.job import ArtifactStatus, CheckpointStatus, PriorStatus, Progress, RunStatus, Scores
from dreambooth_api.reasons import Reason
from dreambooth_api.result import MAX_TERMINATION_BYTES, Fault, PrepareResult, TrainResult, dump_result, load_result

DIGEST = "sha256:" + "a" * 64
PREPARED = PrepareResult(
    prior=PriorStatus(uri="s3://b/priors/x", images=200, reused=20), dataset_digest=DIGEST, base_digest=DIGEST, images=4
)
TRAINED = TrainResult(
    progress=Progress(step=600, steps=600, percent=100, loss="0.1234"),
    scores=Scores(clip_i="0.912", base_clip_i="0.610"),
    artifact=ArtifactStatus(uri="s3://b/models/n/robot/aaaa", digest=DIGEST, bytes=10**9),
    run=RunStatus(experiment="demo", id="0" * 32, url="http://mlflow:5000/#/experiments/1/runs/0"),
    checkpoint=CheckpointStatus(step=600, uri="s3://b/jobs/n/robot/uid/checkpoints/step-000600"),
)


@pytest.mark.parametrize("result", [PREPARED, TRAINED, Fault(reason=Reason.DATASET_INVALID, message="1.png is cut.")])
def test_results_survive_the_way(result):
    assert load_result(dump_result(result)) == result


@given(st.text(max_size=9000))
def test_a_fault_fits_however_much_there_is_to_say(message):
    text = dump_result(Fault(reason=Reason.STORE_UNAVAILABLE, message=message))
    assert len(text.encode()) <= MAX_TERMINATION_BYTES
    fault = load_result(text)
    assert isinstance(fault, Fault)
    assert fault.reason is Reason.STORE_UNAVAILABLE


@given(st.text(max_size=9000))
def test_a_training_s_result_keeps_its_artifact_however_long_the_gate_s_prose(prose):
    text = dump_result(TRAINED.model_copy(update={"below_gate": prose}))
    assert len(text.encode()) <= MAX_TERMINATION_BYTES
    result = load_result(text)
    assert isinstance(result, TrainResult)
    assert result.artifact == TRAINED.artifact


@pytest.mark.parametrize("text", ["", "Killed", "{", "[]", '{"kind": "Other"}', '{"kind": "Trained"}'])
def test_what_a_killed_process_left_is_no_result(text):
    assert load_result(text) is None
