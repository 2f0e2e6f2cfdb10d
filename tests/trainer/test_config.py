import pytest

from dreambooth_api.job import Lora, Method
from dreambooth_api.parse import parse_job_file
from dreambooth_trainer.config import check_spec, fingerprint, resolve
from dreambooth_trainer.faults import SpecFault


@pytest.fixture
def spec(small_job):
    return lambda **parts: parse_job_file(small_job(**parts)).spec


@pytest.mark.parametrize(
    ("method", "optimizer", "expected"),
    [("LoRA", "AdamW", (500, 1e-4)), ("Full", "AdamW", (800, 2e-6)), ("LoRA", "Prodigy", (500, 1.0))],
)
def test_defaults_follow_the_method(spec, method: str, optimizer: str, expected: tuple) -> None:
    open_ends = {"steps": None, "learningRate": None, "optimizer": optimizer}
    plan = resolve(spec(method={"type": method}, training=open_ends), 512, "cpu")
    assert (plan.steps, plan.learning_rate) == expected
    assert plan.text_encoder_learning_rate == plan.learning_rate
    assert plan.resolution == 512


@pytest.mark.parametrize(
    ("method", "training", "expected"),
    [
        ("LoRA", {}, (1e-4, 5e-6, 1e-3, 500)),
        ("LoRA", {"learningRate": 2e-6}, (2e-6, 2e-6, 1e-3, 500)),
        ("LoRA", {"optimizer": "Prodigy"}, (1.0, 1.0, 1.0, 500)),
        ("Full", {}, (3e-6, 3e-6, 1e-3, 800)),
        ("Full", {"optimizer": "Adafactor"}, (4e-7, 4e-7, 1e-3, 800)),
        ("Full", {"textEncoderLearningRate": 1e-7, "tokenLearningRate": 0.1}, (3e-6, 1e-7, 0.1, 800)),
    ],
)
def test_defaults_of_sdxl(spec, method: str, training: dict, expected: tuple) -> None:
    open_ends = {"steps": None, "learningRate": None}
    plan = resolve(spec(method={"type": method}, training=open_ends | training), 1024, "cpu", family="sdxl")
    rates = (plan.learning_rate, plan.text_encoder_learning_rate, plan.token_learning_rate)
    assert (*rates, plan.steps) == expected


def test_prodigy_has_one_rate(spec) -> None:
    plan = resolve(spec(training={"optimizer": "Prodigy", "learningRate": 0.5}), 32, "cpu")
    assert (plan.learning_rate, plan.text_encoder_learning_rate, plan.token_learning_rate) == (0.5, 0.5, 0.5)
    with pytest.raises(SpecFault, match="one rate"):
        resolve(spec(training={"optimizer": "Prodigy", "textEncoderLearningRate": 0.1}), 32, "cpu")


@pytest.mark.parametrize(
    ("asked", "device", "bf16", "expected"),
    [
        ("auto", "cpu", False, "no"),
        ("auto", "cuda", True, "bf16"),
        ("auto", "cuda", False, "no"),
        ("bf16", "cpu", False, "bf16"),
    ],
)
def test_precision(spec, asked: str, device: str, bf16: bool, expected: str) -> None:
    assert resolve(spec(training={"precision": asked}), 32, device, bf16).precision == expected


def test_fp16_on_the_cpu_is_refused(spec) -> None:
    job = spec(training={"precision": "fp16"}, topology={"gpusPerNode": 1})
    with pytest.raises(SpecFault, match=r"training\.precision"):
        resolve(job, 32, "cpu")


def test_prompts(spec) -> None:
    prompts = ["a photo of {identifier} {className}, at night", "{className} and sks."]
    plan = resolve(spec(validation={"prompts": prompts}), 32, "cpu")
    assert plan.instance_prompt == "a photo of sks robot"
    assert plan.class_prompt == "a photo of a robot"
    assert plan.validation_prompts == ["a photo of sks robot, at night", "robot and sks."]
    assert plan.plain_prompts == ["a photo of robot, at night", "robot and"]


@pytest.mark.parametrize(
    ("parts", "field"),
    [
        ({"publish": {"gate": {"clipI": 0.5}}}, "scoring.clip"),
        ({"publish": {"gate": {"dino": 0.5}}}, "scoring.dino"),
        ({"publish": {"gate": {"div": 0.5}}}, "scoring"),
        (
            {"publish": {"gate": {"clipI": 0.5}}, "scoring": {"clip": "s3://bucket/clip"}, "subject": {"holdout": 0}},
            "subject.holdout",
        ),
    ],
)
def test_what_cannot_be_is_refused(spec, parts: dict, field: str) -> None:
    with pytest.raises(SpecFault, match=field):
        check_spec(spec(**parts))


def test_fingerprint_follows_what_is_trained_and_nothing_else(spec) -> None:
    base = fingerprint(spec(), "base", "data")
    assert fingerprint(spec(validation={"images": 3}, topology={"nodes": 2}), "base", "data") == base
    assert fingerprint(spec(subject={"images": {"uri": "s3://elsewhere/robot"}}), "base", "data") == base
    others = [
        fingerprint(spec(training={"seed": 1}), "base", "data"),
        fingerprint(spec(prior={"weight": 0.5}), "base", "data"),
        fingerprint(spec(), "other", "data"),
        fingerprint(spec(), "base", "other"),
    ]
    assert len({base, *others}) == 5


def test_fingerprint_is_the_same_in_a_release_that_knows_more_fields(spec) -> None:
    class NewerLora(Lora):
        dropout: float = 0.0

    class NewerMethod(Method):
        lora: NewerLora = NewerLora()
        layers: tuple[str, ...] = ()

    chosen = {"lora": {"rank": 4, "dora": True}, "learnToken": True}
    older = spec(method=chosen)
    newer = older.model_copy(update={"method": NewerMethod.model_validate(chosen)})
    assert fingerprint(newer, "base", "data") == fingerprint(older, "base", "data")
    # A default that is spelled out is no other setting; a value that is not the default is one, of a new field too.
    spelled = spec(method={**chosen, "trainTextEncoder": True})
    assert fingerprint(spelled, "base", "data") == fingerprint(older, "base", "data")
    for changed in ({**chosen, "layers": ["mid"]}, {**chosen, "lora": {"rank": 4, "dora": True, "dropout": 0.1}}):
        other = older.model_copy(update={"method": NewerMethod.model_validate(changed)})
        assert fingerprint(other, "base", "data") != fingerprint(older, "base", "data")
