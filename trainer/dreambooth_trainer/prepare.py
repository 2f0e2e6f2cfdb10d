"""`prepare`: is the input good? Then draw the class images and measure the base, for `train` to start from.

What can be refused without torch is refused first, within a second.
"""

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from dreambooth_api.job import Progress
from dreambooth_api.names import PREPARED
from dreambooth_api.reasons import Phase
from dreambooth_api.result import PrepareResult
from dreambooth_trainer import compiling, inputs, libraries
from dreambooth_trainer.base import base_digest, base_files, check_family, family_name, native_resolution, size_step
from dreambooth_trainer.config import Plan, check_spec, fingerprint, resolve
from dreambooth_trainer.context import Context
from dreambooth_trainer.faults import DatasetInvalid, SpecFault
from dreambooth_trainer.keys import key_of
from dreambooth_trainer.pictures import PictureSet, load_pictures
from dreambooth_trainer.progress import Board, Console
from dreambooth_trainer.shard import Shard
from dreambooth_trainer.store import Missing

if TYPE_CHECKING:
    from dreambooth_trainer.family import Family


@dataclass(frozen=True)
class Prepared:
    """What `prepare` found and `train` holds the input against."""

    base_digest: str
    dataset_digest: str
    prior_key: str | None
    # What the base's scores depend on beside the digests; the scores of another key are measured anew.
    scoring_key: str = ""
    base_scores: dict[str, float] = field(default_factory=dict)

    def dump(self) -> bytes:
        """As JSON."""
        return json.dumps(self.__dict__, indent=1).encode()


def read_prepared(ctx: Context) -> Prepared:
    """What was prepared. Raises SpecFault when nothing was."""
    try:
        return Prepared(**json.loads(ctx.job_store.read(PREPARED)))
    except (Missing, ValueError, TypeError) as e:
        raise SpecFault(f"{ctx.job_store.uri}/{PREPARED} is missing: run `prepare` first") from e


class Inputs:
    """Base and pictures on this machine, checked, and the plan that follows from them."""

    def __init__(self, ctx: Context) -> None:
        """Fetch and check. Raises the faults of spec, pictures and base."""
        check_spec(ctx.spec)
        self.ctx = ctx
        pictures = inputs.fetch_pictures(ctx)
        # At the base's own resolution pictures are judged below; what is no picture is refused before a base is
        # fetched, which may take minutes.
        load_pictures(pictures, ctx.spec.training.resolution or 16, ctx.spec.subject.holdout)
        self.base: Path = inputs.fetch_base(ctx)
        check_family(self.base)
        self.encoders = {
            name: inputs.fetch_encoder(ctx, uri, f"scoring.{name}")
            for name, uri in (("clip", ctx.spec.scoring.clip), ("dino", ctx.spec.scoring.dino))
            if uri
        }
        self.base_files = base_files(self.base)
        self.base_digest = self.base_files.digest
        self.plan: Plan = _plan(ctx, self.base)
        compiling.check_compiles(self.plan)
        step = size_step(self.base) if ctx.spec.training.aspect_ratio_buckets else None
        self.pictures: PictureSet = load_pictures(pictures, self.plan.resolution, ctx.spec.subject.holdout, step)

    @cached_property
    def family(self) -> "Family":
        """The base, whose parts are loaded when they are first asked for."""
        import torch

        from dreambooth_trainer.family import open_family

        return open_family(self.base, torch.device(self.plan.device))

    def load(self) -> "Family":
        """The base with all its parts, whose text encoders see the subject in every caption.

        Raises BaseModelInvalid, SpecFault, DatasetInvalid.
        """
        family, identifier = self.family, self.ctx.spec.subject.identifier
        family.load()
        family.check_words(self.plan.instance_prompt, identifier)
        for picture in self.pictures.train:
            if picture.caption and not family.sees(identifier, self.plan.caption(picture)):
                raise DatasetInvalid(
                    f"{picture.caption_name}: the caption must name the subject, among the words that are read: write "
                    "{identifier} in it"
                )
        return family


def _plan(ctx: Context, base: Path) -> Plan:
    libraries.load(ctx.spec.training.compile)
    import torch

    # Before the thread pools are made, which inherit it. An optimizer's averages of tiny squares become denormal, and
    # arithmetic with those is slow.
    torch.set_flush_denormal(True)
    gpu = ctx.spec.topology.gpus_per_node > 0 and torch.cuda.is_available()
    if ctx.spec.topology.gpus_per_node > 0 and not gpu:
        print("no GPU is visible: training on the CPU (topology.gpusPerNode: 0 says so)", flush=True)
    bf16 = gpu and torch.cuda.is_bf16_supported()
    return resolve(ctx.spec, native_resolution(base), "cuda" if gpu else "cpu", bf16, family_name(base))


def prepare(
    ctx: Context, board: Board, console: Console, shard: Shard = Shard(), got: Inputs | None = None
) -> PrepareResult:
    """Check everything, draw what lacks of the class images, score the base, fill the caches; leave `prepared.json`.

    Of several pods each draws its share; the first commits the whole, and does all the rest.
    """
    got = got or Inputs(ctx)
    plan, pictures = got.plan, got.pictures
    console.say(
        f"pictures: {len(pictures.train)} to train on, {len(pictures.held_out)} held out; base {got.base_digest[:19]}; "
        f"{plan.resolution} pixels"
    )
    result = PrepareResult(dataset_digest=pictures.digest, base_digest=got.base_digest, images=pictures.count)
    family = got.load()
    from dreambooth_trainer import priors
    from dreambooth_trainer.session import fill_caches

    prior = key = None
    if plan.with_prior:
        key = priors.key_of(got.base_digest, family.sampler_identity(), plan)

        def progress(done: int, total: int) -> None:
            board.advance(Progress(step=done, steps=total, percent=100 * done // total))
            console.step("class images", done, total)

        if shard.index:
            drawn = priors.draw_part(ctx, key, plan, lambda: family, shard, progress)
            console.say(f"class images: {drawn} drawn, the share {shard.index + 1} of {shard.count}")
            return result
        prior = priors.complete(ctx, key, plan, lambda: family, shard, progress)
        console.say(f"class images: {prior.images}, {prior.reused} of them there before")
    scoring_key = scoring_key_of(got)
    scores = _known_scores(ctx, scoring_key)
    if scores is None:
        scores = score_base(got, board, console)
    found = Prepared(got.base_digest, pictures.digest, key, scoring_key, scores)
    fill_caches(ctx, got, found)
    ctx.job_store.write(PREPARED, found.dump())
    return result.model_copy(update={"prior": prior})


def scoring_key_of(got: Inputs) -> str:
    """`sha256:<hex>` over all that the base's scores follow from."""
    spec = got.ctx.spec
    encoders = [base_digest(folder) for _, folder in sorted(got.encoders.items())]
    parts = [got.base_digest, got.pictures.digest, encoders, spec.validation.to_dict(), got.plan.resolution]
    words = [got.plan.class_prompt, *got.plan.validation_prompts, spec.subject.holdout]
    return key_of(parts, words)


def checkpoint_scoring_key(got: Inputs, prepared: Prepared) -> str:
    """Of all that a checkpoint's scores follow from: the weights' own settings, and what is drawn and compared."""
    spec, plan = got.ctx.spec, got.plan
    weights = fingerprint(spec, prepared.base_digest, prepared.dataset_digest)
    drawn = [spec.validation.to_dict(), plan.validation_prompts, plan.class_prompt, plan.resolution]
    return key_of(weights, drawn, spec.scoring.clip, spec.scoring.dino)


def _known_scores(ctx: Context, key: str) -> dict[str, float] | None:
    """The base's scores, if an earlier `prepare` measured just these."""
    try:
        before = read_prepared(ctx)
    except SpecFault:
        return None
    return before.base_scores if before.scoring_key == key else None


def score_base(got: Inputs, board: Board, console: Console) -> dict[str, float]:
    """How the base itself draws the validation prompts, for comparison; empty without an encoder."""
    if not got.encoders:
        return {}
    from dreambooth_trainer import scoring

    board.set(phase=Phase.SCORING)
    clip, dino = scoring.encoders(got.encoders)
    held_out = [picture.image for picture in got.pictures.held_out]
    scores = scoring.measure(scoring.draw(got.family, got.plan), held_out, clip, dino)
    console.say("the base: " + "  ".join(f"{name} {value:.3f}" for name, value in scores.items()))
    board.set(phase=Phase.PREPARING)
    return scores
