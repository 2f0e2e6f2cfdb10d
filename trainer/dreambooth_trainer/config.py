"""What the spec leaves open, decided: a pure function of spec, base and device."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dreambooth_api.job import DreamBoothJobSpec, MethodType, Optimizer, Precision
from dreambooth_api.parse import fill_prompt
from dreambooth_trainer.faults import SpecFault
from dreambooth_trainer.keys import key_of

if TYPE_CHECKING:
    from dreambooth_trainer.pictures import Picture


@dataclass(frozen=True)
class Plan:
    """A spec with nothing left open. Sizes in pixels, `batch` in subject's pictures per rank and forward pass."""

    spec: DreamBoothJobSpec
    steps: int
    learning_rate: float
    text_encoder_learning_rate: float
    token_learning_rate: float
    resolution: int
    precision: str
    device: str
    log_every: int

    @property
    def full(self) -> bool:
        """Whether the weights themselves are trained."""
        return self.spec.method.type == MethodType.FULL

    @property
    def batch(self) -> int:
        """Subject's pictures per rank and forward pass."""
        return self.spec.training.batch_size

    @property
    def with_prior(self) -> bool:
        """Whether class images are trained beside."""
        return self.spec.prior.weight > 0

    @property
    def instance_prompt(self) -> str:
        """The caption of the subject's pictures."""
        return filled(self.spec, self.spec.subject.prompt)

    def caption(self, picture: "Picture") -> str:
        """What a picture is trained with: the caption beside it, filled in, or the subject's prompt."""
        return filled(self.spec, picture.caption) if picture.caption else self.instance_prompt

    @property
    def class_prompt(self) -> str:
        """The caption of the class images."""
        return filled(self.spec, self.spec.prior.prompt)

    @property
    def validation_prompts(self) -> list[str]:
        """What is drawn and scored."""
        return [filled(self.spec, prompt) for prompt in self.spec.validation.prompts] or [self.instance_prompt]

    @property
    def plain_prompts(self) -> list[str]:
        """The validation prompts without the identifier: what CLIP-T compares with."""
        templates = self.spec.validation.prompts or [self.spec.subject.prompt]
        return [without_identifier(self.spec, template) for template in templates]


def filled(spec: DreamBoothJobSpec, template: str) -> str:
    """`template` with the subject's words."""
    return fill_prompt(template, spec.subject.identifier, spec.subject.class_name)


def without_identifier(spec: DreamBoothJobSpec, template: str) -> str:
    """`template` filled in, its identifier left out."""
    words = filled(spec, template).split()
    return " ".join(word for word in words if word.strip(".,;:!?\"'") != spec.subject.identifier)


# (family, method) → rates of U-Net, text encoders and learned token, steps. The text encoders of SDXL are trained
# slowly, as in diffusers' own scripts; its whole U-Net as OneTrainer does; Adafactor's rate is kohya's.
_DEFAULTS = {
    ("sd", MethodType.LORA): (1e-4, 1e-4, 1e-3, 500),
    ("sd", MethodType.FULL): (2e-6, 2e-6, 1e-3, 800),
    ("sdxl", MethodType.LORA): (1e-4, 5e-6, 1e-3, 500),
    ("sdxl", MethodType.FULL): (3e-6, 3e-6, 1e-3, 800),
}
_SDXL_FULL_ADAFACTOR = 4e-7


def resolve(
    spec: DreamBoothJobSpec, native_resolution: int, device: str, bf16: bool = False, family: str = "sd"
) -> Plan:
    """Decide what `spec` leaves open, for a base of `family` and `native_resolution` pixels on `device` (cpu or cuda).

    `bf16` says whether the GPU computes in bf16. Raises SpecFault for what this device cannot do.
    """
    training, method = spec.training, spec.method.type
    rate, text_rate, token_rate, steps = _DEFAULTS[family, method]
    if training.optimizer == Optimizer.PRODIGY:
        rate = text_rate = token_rate = 1.0
    elif training.optimizer == Optimizer.ADAFACTOR and (family, method) == ("sdxl", MethodType.FULL):
        rate = text_rate = _SDXL_FULL_ADAFACTOR
    if training.learning_rate:
        # Who names one rate means it; only where the text encoders' own default is lower it stays a bound.
        text_rate = min(training.learning_rate, text_rate) if text_rate < rate else training.learning_rate
        rate = training.learning_rate
    text_rate = training.text_encoder_learning_rate or text_rate
    token_rate = training.token_learning_rate or (rate if training.optimizer == Optimizer.PRODIGY else token_rate)
    if training.optimizer == Optimizer.PRODIGY and not rate == text_rate == token_rate:
        raise SpecFault("training: Prodigy finds one rate for all: leave textEncoder- and tokenLearningRate out")
    precision = training.precision
    if precision == Precision.AUTO:
        precision = Precision.BF16 if device == "cuda" and bf16 else Precision.FP32
    if precision == Precision.FP16 and device == "cpu":
        raise SpecFault("training.precision: fp16 needs a GPU; use bf16, fp32 or auto on the CPU")
    return Plan(
        spec=spec,
        steps=training.steps or steps,
        learning_rate=rate,
        text_encoder_learning_rate=text_rate,
        token_learning_rate=token_rate,
        resolution=training.resolution or native_resolution,
        precision={Precision.FP32: "no"}.get(precision, precision.value),
        device=device,
        # On a GPU reading a loss waits for all queued work; on the CPU it costs nothing.
        log_every=1 if device == "cpu" else 10,
    )


def check_spec(spec: DreamBoothJobSpec) -> None:
    """Refuse what this release cannot do, rather than ignoring it. Raises SpecFault."""
    gate = spec.publish.gate
    clip, dino = spec.scoring.clip is not None, spec.scoring.dino is not None
    if (gate.clip_i is not None or gate.clip_t is not None) and not clip:
        raise SpecFault("publish.gate: clipI and clipT need an encoder: set scoring.clip")
    if gate.dino is not None and not dino:
        raise SpecFault("publish.gate.dino needs an encoder: set scoring.dino")
    if (gate.pres is not None or gate.div is not None) and not (clip or dino):
        raise SpecFault("publish.gate: pres and div need an encoder: set scoring.dino or scoring.clip")
    if (gate.clip_i is not None or gate.dino is not None or gate.pres is not None) and spec.subject.holdout == 0:
        raise SpecFault("publish.gate: clipI, dino and pres are measured on held-out pictures: set subject.holdout")


def fingerprint(spec: DreamBoothJobSpec, base_digest: str, dataset_digest: str) -> str:
    """What a checkpoint must share with a run to be continued by it: `sha256:<hex>`.

    Over what differs from the defaults: a newer release, which knows more fields, goes on with what an older one began.
    """
    parts = {name: getattr(spec, name).choices() for name in ("subject", "prior", "method", "training")}
    # Where the pictures are may change as long as they are the same pictures.
    parts["subject"].pop("images", None)
    # How many pods drew the class images changes nothing in them.
    parts["prior"].pop("pods", None)
    return key_of(parts, base_digest, dataset_digest)
