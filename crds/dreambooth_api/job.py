"""`DreamBoothJob`: teach one subject to one base model."""

import math
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from dreambooth_api import names
from dreambooth_api.base import ApiModel
from dreambooth_api.conditions import Condition
from dreambooth_api.pods import PodOverrides
from dreambooth_api.reasons import Phase
from dreambooth_api.serving import Serving
from dreambooth_api.uris import BASE_PATTERN, IMAGES_PATTERN, NO_CLIMBING, no_climbing

Word = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=64)]
ClassName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9 _-]*$", max_length=64)]
Name = Annotated[str, StringConstraints(pattern=names.NAME_PATTERN, max_length=names.MAX_NAME_LENGTH)]
# With fewer class images a pod's start costs more than its help is worth.
IMAGES_PER_POD = 100
Prompt = Annotated[str, StringConstraints(min_length=1, max_length=1000)]


class SecretReference(ApiModel):
    """A Secret in the same namespace, by name."""

    name: str = Field(min_length=1, max_length=253, pattern=names.OBJECT_PATTERN, description="The Secret's name.")


class BaseModelSource(ApiModel):
    """The model that the subject is taught to."""

    __cel__ = (NO_CLIMBING,)

    uri: str = Field(
        pattern=BASE_PATTERN,
        max_length=1024,
        description="`hf://organisation/name`, `s3://bucket/path` or `pvc://claim/path`: in diffusers' layout.",
    )
    revision: str | None = Field(None, max_length=255, description="Branch, tag or commit of an `hf://` base.")
    secret_ref: SecretReference | None = Field(
        None, description="A Secret whose key `token` opens a gated `hf://` base."
    )


class ImageSource(ApiModel):
    """Where the pictures of the subject are."""

    __cel__ = (NO_CLIMBING,)

    uri: str = Field(
        pattern=IMAGES_PATTERN,
        max_length=1024,
        description="`s3://bucket/path/`, `pvc://claim/path` or `configMap://name`: a folder of PNG, JPEG or WebP; "
        "beside `a.png`, `a.txt` may hold its caption and `a.mask.png` what of it counts.",
    )


class Subject(ApiModel):
    """Who or what is taught, and the words for it."""

    __cel__ = (
        (
            "!has(self.prompt) || (self.prompt.contains('{identifier}') || self.prompt.contains(self.identifier))",
            "prompt must contain the identifier: write {identifier} where it belongs",
            ".prompt",
        ),
    )

    images: ImageSource = Field(description="The pictures: 3 to 5 are usual.")
    identifier: Word = Field("sks", description="The rare word that comes to mean the subject.")
    class_name: ClassName = Field(description="The noun of the subject's class, e.g. `dog`; the prior keeps it varied.")
    prompt: Prompt = Field(
        "a photo of {identifier} {className}",
        description="The caption of the pictures. `{identifier}` and `{className}` are filled in.",
    )
    holdout: int = Field(
        1, ge=0, le=100, description="How many pictures are kept from training to score fidelity on (0: none)."
    )


class Prior(ApiModel):
    """Prior-preservation: pictures of the class, drawn by the base itself, trained beside the subject's (λ = `weight`).

    Source: Ruiz et al., DreamBooth, arXiv 2208.12242, section 3.3.
    """

    weight: float = Field(1.0, ge=0, le=100, description="λ of the prior's loss; 0: no prior, no class images.")
    images: int = Field(200, ge=1, le=100_000, description="How many class images.")
    prompt: Prompt = Field("a photo of a {className}", description="What the class images are drawn from.")
    seed: int = Field(0, ge=0, le=2**31 - 1, description="Image i is drawn with seed + i.")
    steps: int = Field(25, ge=1, le=1000, description="Denoising steps per class image.")
    guidance_scale: float = Field(7.5, ge=0, le=50, description="Classifier-free guidance of the class images.")
    pods: int | None = Field(
        None,
        ge=1,
        le=256,
        description="Pods that draw them, a share each. Default: one per 100 images, at most topology.nodes.",
    )


class MethodType(StrEnum):
    """What is trained: low-rank adapters, or the weights themselves."""

    LORA = "LoRA"
    FULL = "Full"


class Lora(ApiModel):
    """Low-rank adapters (Hu et al., arXiv 2106.09685)."""

    rank: int = Field(16, ge=1, le=512, description="Rank of the update.")
    alpha: float = Field(16, gt=0, le=4096, description="Scale: the update is multiplied by alpha/rank.")
    dora: bool = Field(False, description="Weight-decomposed adapters (arXiv 2402.09353).")
    targets: list[Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.]+$", max_length=128)]] = Field(
        ["to_q", "to_k", "to_v", "to_out.0"],
        min_length=1,
        max_length=64,
        description="Names of the U-Net's modules that get adapters.",
    )


class Method(ApiModel):
    """How the subject is taught."""

    type: MethodType = Field(MethodType.LORA, description="`LoRA` or `Full`.")
    train_text_encoder: bool = Field(True, description="Train the text encoder beside the U-Net.")
    learn_token: bool = Field(False, description="Learn an embedding for the identifier (pivotal tuning).")
    lora: Lora = Field(Lora(), description="Settings of `type: LoRA`; ignored otherwise.")


class Optimizer(StrEnum):
    """Optimizers by name."""

    ADAMW = "AdamW"
    ADAMW_8BIT = "AdamW8bit"
    PRODIGY = "Prodigy"
    ADAFACTOR = "Adafactor"


class Precision(StrEnum):
    """Number format of forward and backward; `auto`: bf16 on a GPU that has it, else fp32."""

    AUTO = "auto"
    BF16 = "bf16"
    FP16 = "fp16"
    FP32 = "fp32"


class Training(ApiModel):
    """The optimisation. What is left out takes the default of the base's family and the method (`docs/api.md`)."""

    steps: int | None = Field(None, ge=1, le=1_000_000, description="Optimizer steps. Default: 500 LoRA, 800 Full.")
    batch_size: int = Field(
        1, ge=1, le=1024, description="Subject's pictures per rank and forward pass (as many of the class beside)."
    )
    gradient_accumulation: int = Field(1, ge=1, le=1024, description="Forward passes per optimizer step.")
    learning_rate: float | None = Field(
        None,
        gt=0,
        le=10,
        description="Default: 1e-4 LoRA, 2e-6 Full (SDXL: 3e-6, with Adafactor 4e-7), 1.0 Prodigy.",
    )
    text_encoder_learning_rate: float | None = Field(
        None, gt=0, le=10, description="Default: the learning rate; for LoRA on SDXL at most 5e-6."
    )
    token_learning_rate: float | None = Field(
        None, gt=0, le=10, description="Of a learned token. Default: 1e-3, 1.0 with Prodigy."
    )
    lr_scheduler: Literal["constant", "constant_with_warmup", "linear", "cosine"] = Field(
        "constant", description="How the learning rate runs over the steps."
    )
    warmup_steps: int = Field(0, ge=0, le=1_000_000, description="Steps over which the learning rate rises from 0.")
    optimizer: Optimizer = Field(Optimizer.ADAMW, description="The optimizer.")
    weight_decay: float = Field(0.01, ge=0, le=10, description="Decoupled weight decay.")
    max_grad_norm: float = Field(1.0, gt=0, le=1e6, description="Gradients are clipped to this norm.")
    precision: Precision = Field(Precision.AUTO, description="Number format of forward and backward.")
    gradient_checkpointing: bool = Field(False, description="Recompute activations: less memory, slower.")
    snr_gamma: float | None = Field(None, gt=0, le=100, description="min-SNR-γ loss weighting (arXiv 2303.09556).")
    ema: float | None = Field(None, gt=0, lt=1, description="Decay of an exponential moving average of the weights.")
    resolution: int | None = Field(
        None, ge=8, le=4096, multiple_of=8, description="Pixels of a side. Default: the base's."
    )
    aspect_ratio_buckets: bool = Field(
        False,
        description="Cut each picture of the subject to the size, of about the square's area, that is nearest to its "
        "shape; otherwise to the square in its middle.",
    )
    flip: bool = Field(False, description="Mirror every other picture at random: not for subjects with a side.")
    seed: int = Field(0, ge=0, le=2**31 - 1, description="The seed of every random choice.")
    compile: bool = Field(False, description="torch.compile the U-Net.")


class Checkpoints(ApiModel):
    """Full training states in the store."""

    every_steps: int = Field(100, ge=1, le=1_000_000, description="A checkpoint every so many steps, and at the end.")
    keep: int = Field(2, ge=1, le=100, description="How many of the newest are kept; the best one is kept beside.")


class Validation(ApiModel):
    """Pictures drawn while training, into MLflow."""

    prompts: list[Prompt] = Field(
        [],
        max_length=32,
        description="What is drawn; `{identifier}` and `{className}` are filled in. Empty: the subject's prompt.",
    )
    every_steps: int | None = Field(None, ge=1, le=1_000_000, description="Default: only at the end.")
    images: int = Field(4, ge=1, le=64, description="Pictures per prompt.")
    steps: int = Field(25, ge=1, le=1000, description="Denoising steps per picture.")
    guidance_scale: float = Field(7.5, ge=0, le=50, description="Classifier-free guidance.")


class Scoring(ApiModel):
    """The encoders that measure fidelity. Without one its scores are left out."""

    __cel__ = (no_climbing("clip", optional=True), no_climbing("dino", optional=True))

    clip: str | None = Field(
        None, pattern=BASE_PATTERN, max_length=1024, description="URI of a CLIP model: clipI, clipT."
    )
    dino: str | None = Field(None, pattern=BASE_PATTERN, max_length=1024, description="URI of a DINO model: dino.")
    every_checkpoints: int = Field(
        1, ge=0, le=1_000_000, description="Score every n-th checkpoint, and the last (0: the last alone)."
    )
    patience: int | None = Field(
        None,
        ge=1,
        le=1000,
        description="End training when the score has not risen for so many scored checkpoints. Default: never.",
    )


class Sharding(StrEnum):
    """What each rank holds of what is trained.

    `Replicated`: all of it (DDP). `FullySharded`: its part of weights, gradients and optimizer state (FSDP).
    """

    REPLICATED = "Replicated"
    FULLY_SHARDED = "FullySharded"


class Topology(ApiModel):
    """The pods that train."""

    nodes: int = Field(1, ge=1, le=256, description="Training pods.")
    gpus_per_node: int = Field(1, ge=0, le=64, description="GPUs, and ranks, per pod; 0: train on the CPU.")
    processes_per_node: int | None = Field(
        None, ge=1, le=64, description="Ranks per pod. Default: one per GPU, 1 on the CPU."
    )
    sharding: Sharding = Field(
        Sharding.REPLICATED,
        description="What each rank holds: `Replicated`: all weights, gradients and optimizer state. `FullySharded`: "
        "its part of them, for what does not fit; with AdamW, in bf16 or fp32, not compiled.",
    )
    template: PodOverrides = Field(PodOverrides(), description="Overrides of the pods.")

    @property
    def ranks_per_node(self) -> int:
        """Ranks that each pod runs."""
        return self.processes_per_node or max(1, self.gpus_per_node)

    @property
    def world_size(self) -> int:
        """Ranks in all."""
        return self.nodes * self.ranks_per_node


class Gate(ApiModel):
    """The least scores with which a model is published; what is not named is not asked for."""

    dino: float | None = Field(None, ge=-1, le=1, description="Mean cosine to the held-out pictures, DINO features.")
    clip_i: float | None = Field(None, ge=-1, le=1, description="Mean cosine to the held-out pictures, CLIP features.")
    clip_t: float | None = Field(None, ge=-1, le=1, description="Mean cosine to the prompts, CLIP features.")
    pres: float | None = Field(
        None, ge=-1, le=1, description="Highest allowed PRES: likeness of plain class pictures to the subject."
    )
    div: float | None = Field(None, ge=0, description="Least DIV: variety of plain class pictures.")


class Choice(StrEnum):
    """Which checkpoint is published.

    `Best`: of the scored ones that pass the gate, or of all if none does, the one most like the held-out pictures by
    DINO, else by CLIP-I; without either score, the last.
    """

    BEST = "Best"
    LAST = "Last"


class Publish(ApiModel):
    """What becomes of the result."""

    name: Name = Field(description="The PersonalizedModel that rolls the result out.")
    checkpoint: Choice = Field(
        Choice.BEST,
        description="`Best`: the scored checkpoint that is most like the held-out pictures (`dino`, else `clipI`) "
        "among those that pass the gate. `Last`: the last.",
    )
    gate: Gate = Field(Gate(), description="The quality gate.")
    serving: Serving = Field(Serving(), description="How the model is served.")


class DreamBoothJobSpec(ApiModel):
    """What is taught, how, where, and what becomes of it."""

    __cel__ = (
        (
            "!has(self.training.steps) || self.training.warmupSteps < self.training.steps",
            "warmupSteps must be below steps",
            ".training.warmupSteps",
        ),
        (
            "self.topology.gpusPerNode > 0 || self.training.precision != 'fp16'",
            "fp16 needs a GPU: set topology.gpusPerNode or another precision",
            ".training.precision",
        ),
        (
            "!has(self.topology.sharding) || self.topology.sharding != 'FullySharded' "
            "|| (self.training.optimizer == 'AdamW' && self.training.precision != 'fp16' && !self.training.compile)",
            "FullySharded is for AdamW in bf16, fp32 or auto, without compile: change these or use Replicated",
            ".topology.sharding",
        ),
        (
            "!has(self.validation.everySteps) || !has(self.training.steps) "
            "|| self.validation.everySteps <= self.training.steps",
            "validation.everySteps must not exceed training.steps",
            ".validation.everySteps",
        ),
    )

    base_model: BaseModelSource = Field(description="The base model.")
    subject: Subject = Field(description="The subject.")
    prior: Prior = Field(Prior(), description="Prior preservation.")
    method: Method = Field(Method(), description="What is trained.")
    training: Training = Field(Training(), description="The optimisation.")
    checkpoints: Checkpoints = Field(Checkpoints(), description="Training states in the store.")
    validation: Validation = Field(Validation(), description="Pictures drawn while training.")
    scoring: Scoring = Field(Scoring(), description="How fidelity is measured.")
    topology: Topology = Field(Topology(), description="The pods that train.")
    suspend: bool = Field(
        False, description="True: no pods; the job goes on from its checkpoint when it is false again."
    )
    start_deadline_seconds: int = Field(
        3600, ge=1, le=31_536_000, description="Pods that have not started by then are given up, seconds."
    )
    active_deadline_seconds: int | None = Field(
        None, ge=1, le=31_536_000, description="The longest the job may run, seconds."
    )
    backoff_limit: int = Field(6, ge=0, le=1000, description="Retries after failures that a retry may mend.")
    ttl_seconds_after_finished: int | None = Field(
        None, ge=0, le=31_536_000, description="The finished job's pods are deleted after this, seconds. Default: kept."
    )
    publish: Publish = Field(description="What becomes of the result.")

    @property
    def prepare_pods(self) -> int:
        """Pods that check the input and draw the class images; never more than there are images."""
        if self.prior.weight == 0:
            return 1
        pods = self.prior.pods or min(self.topology.nodes, math.ceil(self.prior.images / IMAGES_PER_POD))
        return min(pods, self.prior.images)


class Progress(ApiModel):
    """How far the training is, as last heard from rank 0."""

    step: int = Field(0, ge=0, description="Optimizer steps done.")
    steps: int = Field(0, ge=0, description="Optimizer steps in all.")
    percent: int = Field(0, ge=0, le=100, description="Share done.")
    loss: str | None = Field(None, description="Mean loss of the last steps, as text with four digits.")
    images_per_second: str | None = Field(None, description="Training pictures per second over all ranks.")
    eta_seconds: int | None = Field(None, ge=0, description="Seconds to the last step at this pace.")
    time: str | None = Field(None, description="When this was heard, RFC 3339.")


class RunStatus(ApiModel):
    """The run in MLflow."""

    experiment: str | None = Field(None, description="The experiment: the job's namespace.")
    id: str | None = Field(None, description="The run's id, the same over all restarts.")
    url: str | None = Field(None, description="Where to look at it.")


class CheckpointStatus(ApiModel):
    """The newest checkpoint in the store."""

    step: int = Field(ge=0, description="The step it holds.")
    uri: str = Field(description="Where it is.")
    time: str | None = Field(None, description="When it was committed, RFC 3339.")


class PriorStatus(ApiModel):
    """The class images."""

    uri: str = Field(description="Where they are.")
    images: int = Field(ge=0, description="How many.")
    reused: int = Field(0, ge=0, description="How many of them were there before.")


class Scores(ApiModel):
    """Fidelity and drift, as text with three digits; what was not measured is absent."""

    dino: str | None = Field(None, description="Cosine to held-out pictures, DINO features.")
    clip_i: str | None = Field(None, description="Cosine to held-out pictures, CLIP features.")
    clip_t: str | None = Field(None, description="Cosine to the prompts, CLIP features.")
    pres: str | None = Field(None, description="Likeness of plain class pictures to the subject (lower is better).")
    div: str | None = Field(None, description="Variety of plain class pictures.")
    base_dino: str | None = Field(None, description="`dino` of the base, before training.")
    base_clip_i: str | None = Field(None, description="`clipI` of the base, before training.")


class ArtifactStatus(ApiModel):
    """The result in the store."""

    uri: str = Field(description="Where it is.")
    digest: str = Field(description="`sha256:<hex>` over its files.")
    bytes: int = Field(0, ge=0, description="Size of all files, bytes.")


class DreamBoothJobStatus(ApiModel):
    """What the operator saw."""

    observed_generation: int | None = Field(None, description="The generation of the spec that this is about.")
    phase: Phase | None = Field(None, description="Where the job is.")
    conditions: list[Condition] = Field([], description="`Complete` and `Failed`.")
    restarts: int = Field(0, ge=0, description="Training pods that failed and were replaced.")
    start_time: str | None = Field(
        None, description="When the job began, or went on after a suspension, RFC 3339. Absent: not yet."
    )
    completion_time: str | None = Field(None, description="When it ended, RFC 3339.")
    progress: Progress | None = Field(None, description="How far the training is.")
    run: RunStatus | None = Field(None, description="The run in MLflow.")
    checkpoint: CheckpointStatus | None = Field(None, description="The newest checkpoint.")
    best_checkpoint: CheckpointStatus | None = Field(None, description="The best scored checkpoint; `scores` are its.")
    prior: PriorStatus | None = Field(None, description="The class images.")
    scores: Scores | None = Field(None, description="Fidelity and drift of the best checkpoint so far.")
    artifact: ArtifactStatus | None = Field(None, description="The result.")


class DreamBoothJob(ApiModel):
    """Teaches one subject to one base model and publishes the result as a PersonalizedModel."""

    __cel__ = tuple(
        (
            # By what was before: the status that begins a job need not be kept waiting for the comparison.
            "!has(oldSelf.status) || !has(oldSelf.status.phase) || oldSelf.status.phase == 'Pending' "
            "|| (oldSelf.status.phase == 'Suspended' && !has(oldSelf.status.startTime)) "
            f"|| self.spec.{field} == oldSelf.spec.{field}",
            f"spec.{field} is immutable once the job has started: make a new job with a new name",
            f".spec.{field}",
        )
        for field in ("baseModel", "subject", "prior", "method", "training")
    )

    spec: DreamBoothJobSpec = Field(description="What is taught, how, where, and what becomes of it.")
    status: DreamBoothJobStatus = Field(default_factory=DreamBoothJobStatus, description="What the operator saw.")
