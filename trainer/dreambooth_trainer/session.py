"""Everything that a training has in hand, put together in order: data, model, optimizer, ranks, the point to resume."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from PIL import Image
from torch import Tensor, nn

from dreambooth_api import layout
from dreambooth_trainer import cache, compiling, dataset, optim, priors, sharding, trainee
from dreambooth_trainer.base import part_digest
from dreambooth_trainer.checkpoint import Checkpoints, State
from dreambooth_trainer.config import Plan, fingerprint
from dreambooth_trainer.context import Context
from dreambooth_trainer.dataset import Dataset, Latents
from dreambooth_trainer.distributed import World
from dreambooth_trainer.family import Family
from dreambooth_trainer.faults import CheckpointsCorrupt, DatasetInvalid
from dreambooth_trainer.keys import key_of
from dreambooth_trainer.manifests import CorruptFolder
from dreambooth_trainer.prepare import Inputs, Prepared
from dreambooth_trainer.progress import Console
from dreambooth_trainer.tracking import Entry
from dreambooth_trainer.trainee import Ema, Trainee

T = TypeVar("T")


@dataclass
class Session:
    """A training in progress; `step` and `samples` are its position."""

    ctx: Context
    plan: Plan
    world: World
    family: Family
    data: Dataset
    # A row per caption: token ids when the text encoder trains, else hidden states.
    text: Tensor
    trainee: Trainee
    # The trained parameters by name: to find them is to walk through all modules, and every step needs them.
    trained: dict[str, nn.Parameter]
    model: nn.Module
    optimizer: torch.optim.Optimizer
    accelerator: Accelerator
    ema: Ema | None
    fingerprint: str
    # Whether each rank holds a part of what is trained.
    sharded: bool = False
    # Where it does: the weights to show, as last collected on rank 0, and the model that shows them.
    whole: dict[str, Tensor] | None = None
    display: Trainee | None = None
    step: int = 0
    samples: int = 0
    resumed: bool = False
    # Seconds in which samples were waited for since the last report.
    waited: float = 0.0
    # Numbers of before the resume that MLflow has not taken yet.
    unsent: list[Entry] = field(default_factory=list)

    @property
    def per_step(self) -> int:
        """Subject's samples of all ranks in one step."""
        return self.data.per_step * self.world.size

    def state(self, unsent: list[Entry]) -> State:
        """All that changes, not copied: it is this step's until the optimizer's next one.

        Sharded, it is brought together on rank 0, copied, and called by every rank.
        """
        scaler = self.accelerator.scaler
        changing = {
            "weights": dict(self.trained),
            "optimizer": self.optimizer.state_dict(),
            "ema": dict(self.ema.shadow) if self.ema else {},
        }
        if self.sharded:
            changing = sharding.gathered(changing, keep=self.world.leads)
        on_gpu = self.plan.device == "cuda" and not self.sharded
        return State(
            step=self.step,
            samples=self.samples,
            fingerprint=self.fingerprint,
            world_size=self.world.size,
            **changing,
            scaler=scaler.state_dict() if scaler is not None else {},
            unsent=unsent,
            copied=self.sharded,
            ready=torch.cuda.current_stream().record_event() if on_gpu else None,
        )

    def collect(self) -> None:
        """Bring the weights to show together on rank 0, where they are sharded. Called by every rank."""
        if self.sharded:
            self.whole = None
            found = sharding.gathered(dict(self.ema.shadow if self.ema else self.trained), keep=self.world.leads)
            self.whole = found if self.world.leads else None


def check_unchanged(prepared: Prepared, got: Inputs) -> None:
    """Whether pictures and base are those that were prepared. Raises DatasetInvalid."""
    if prepared.dataset_digest != got.pictures.digest:
        raise DatasetInvalid("subject.images: the pictures changed since the job began: make a new job")
    if prepared.base_digest != got.base_digest:
        raise DatasetInvalid("baseModel: the base changed since the job began: make a new job")


def begin(
    ctx: Context, got: Inputs, prepared: Prepared, world: World, console: Console, ended: int | None = None
) -> Session:
    """Cache what is fixed, make the model trainable, and go back to the newest checkpoint.

    `ended`: the step at which training ended, if it did.
    """
    plan, family = got.plan, got.family
    data, captions = _data(ctx, got, prepared, world)
    family.park_vae()
    # Before the model is built, which on a GPU takes what is frozen to the number format of the computation.
    fixed = _embeddings(ctx, got, world, captions) if reads_only(plan) else None
    model = trainee.build(family, plan)
    text = model.read(captions) if fixed is None else fixed.to(plan.device, family.autocast)
    if sharded := sharding.is_sharded(plan, world):
        sharding.shard(model, plan, world)
    decay = plan.spec.training.ema
    session = Session(
        ctx=ctx,
        plan=plan,
        world=world,
        family=family,
        data=data,
        text=text,
        trainee=model,
        trained=model.trainable(),
        model=model,
        optimizer=optim.build_optimizer(model, plan),
        accelerator=_accelerator(plan),
        ema=Ema(model.trainable(), decay) if decay and (world.leads or sharded) else None,
        fingerprint=fingerprint(ctx.spec, got.base_digest, got.pictures.digest),
        sharded=sharded,
    )
    _resume(session, console, ended)
    if plan.spec.training.compile:
        console.say("training.compile: the first step waits for the compiler, for minutes unless it has been here")
        model.program = compiling.compiled(model.unet, ctx)
    # A sharded model averages its gradients itself: it gets the number format alone, and no DDP.
    session.model = session.accelerator.prepare_model(model, evaluation_mode=sharded)
    session.optimizer = session.accelerator.prepare_optimizer(session.optimizer)
    return session


def _data(ctx: Context, got: Inputs, prepared: Prepared, world: World) -> tuple[Dataset, list[str]]:
    """What is learnt from, and its captions."""
    plan, pictures, prior = got.plan, got.pictures.train, None
    captions = list(dict.fromkeys(plan.caption(picture) for picture in pictures))
    images = [picture.image for picture in pictures]
    latents = _latents(ctx, got, world, _digest(images), lambda: images)
    subject = dataset.subject_source(latents, pictures, plan, captions)
    if plan.with_prior:
        captions.append(plan.class_prompt)
        latents = _class_latents(ctx, got, prepared, world)
        prior = dataset.class_source(latents, plan.resolution, len(captions) - 1)
    return Dataset(plan, subject, prior, got.family.timesteps), captions


def _digest(images: Sequence[Image.Image]) -> str:
    """`sha256:<hex>` over pictures as they are trained on, in their order."""
    found = hashlib.sha256()
    for image in images:
        found.update(f"{image.size}".encode() + image.tobytes())
    return f"sha256:{found.hexdigest()}"


def _latents(
    ctx: Context, got: Inputs, world: World, pictures: str, images: Callable[[], Sequence[Image.Image]]
) -> Latents:
    """Latents of the pictures of digest `pictures`, from the store or encoded now; `images` may be asked by rank 0."""
    flip = got.plan.spec.training.flip
    key = key_of(part_digest(got.base_files, "vae"), pictures, got.plan.resolution, flip)

    def compute() -> cache.Tensors:
        return dataset.encode(got.family, images(), flip).tensors()

    return Latents.of(cache.cached(ctx.store.at(layout.latents_prefix(key)), world, compute))


def _class_latents(ctx: Context, got: Inputs, prepared: Prepared, world: World) -> Latents:
    """Of the class images; what was lost or spoilt of them since `prepare` is drawn again by rank 0."""
    key, count = prepared.prior_key or "", got.plan.spec.prior.images

    def whole(read: Callable[[Context, str, int], T]) -> T:
        try:
            return read(ctx, key, count)
        except CorruptFolder:
            priors.complete(ctx, key, got.plan, lambda: got.family)
            return read(ctx, key, count)

    digest = world.share(whole(priors.digest) if world.leads else None)
    return _latents(ctx, got, world, digest, lambda: whole(priors.load))


def reads_only(plan: Plan) -> bool:
    """Whether no text encoder, nor a token of theirs, trains: captions are encoded once."""
    return not (plan.spec.method.train_text_encoder or plan.spec.method.learn_token)


def fill_caches(ctx: Context, got: Inputs, prepared: Prepared) -> None:
    """Leave latents and, where text encoders are frozen, captions in the store: `train` then loads the U-Net alone."""
    _, captions = _data(ctx, got, prepared, World())
    if reads_only(got.plan):
        _embeddings(ctx, got, World(), captions)


def _embeddings(ctx: Context, got: Inputs, world: World, captions: Sequence[str]) -> Tensor:
    """The captions as frozen text encoders read them, from the store or encoded now: a row each."""
    family, plan = got.family, got.plan
    words = part_digest(got.base_files, *family.encoder_names, *family.tokenizer_names)
    key = key_of(words, list(captions), plan.device)
    store = ctx.store.at(layout.embeddings_prefix(key))
    return cache.cached(store, world, lambda: {"text": family.encode_text(captions)})["text"]


def _accelerator(plan: Plan) -> Accelerator:
    return Accelerator(
        cpu=plan.device == "cpu",
        mixed_precision=plan.precision,
        gradient_accumulation_steps=plan.spec.training.gradient_accumulation,
        step_scheduler_with_optimizer=False,
        kwargs_handlers=[DistributedDataParallelKwargs(gradient_as_bucket_view=True)],
    )


def _resume(session: Session, console: Console, ended: int | None) -> None:
    """Go back to the newest checkpoint: rank 0 chooses, every rank loads and verifies it."""
    checkpoints = Checkpoints(session.ctx, console.say)
    state = checkpoints.newest(session.fingerprint) if session.world.leads else None
    step = session.world.share(state.step if state else None)
    if step is None:
        return
    if state is None:
        try:
            state = checkpoints.load(step)
        except CorruptFolder as e:
            raise CheckpointsCorrupt(f"rank {session.world.rank} cannot load the checkpoint of step {step}: {e}") from e
    load_weights(session, state)
    # After the end it is of no use, and what many ranks divided may not fit on one.
    if state.step != ended:
        sharding.load_optimizer(session.optimizer, state.optimizer)
    if session.accelerator.scaler is not None and state.scaler:
        session.accelerator.scaler.load_state_dict(state.scaler)
    session.step, session.samples, session.resumed = state.step, state.samples, True
    session.unsent = state.unsent
    if state.world_size != session.world.size and state.step < session.plan.steps:
        console.say(f"the checkpoint was made by {state.world_size} ranks, now there are {session.world.size}")
    console.say(f"resumed at step {state.step}")


def load_weights(session: Session, state: State) -> None:
    """Put a checkpoint's weights, and their average if there is one, in the place of those of now."""
    for name, parameter in session.trainee.trainable().items():
        sharding.put(state.weights[name], parameter)
    if session.ema:
        for name, average in session.ema.shadow.items():
            sharding.put(state.ema[name], average)
