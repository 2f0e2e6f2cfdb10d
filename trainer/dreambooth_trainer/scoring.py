"""Fidelity and drift, measured: DINO, CLIP-I, CLIP-T (Ruiz et al., arXiv 2208.12242, section 4.2), PRES and DIV.

Pictures drawn of the subject are compared with *held-out* pictures: a score on training pictures rewards copying.
PRES and DIV use DINO's features if there are any, else CLIP's; DIV is 1 − cosine here, where the paper has LPIPS.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from dreambooth_api.job import Gate, Scores
from dreambooth_trainer.config import Plan
from dreambooth_trainer.family import Family
from dreambooth_trainer.faults import SpecFault

# Plain pictures of the class, for PRES and DIV.
PLAIN = 16
# Seeds of scored pictures begin here; those of class images begin at prior.seed.
SEED = 1_000_000


@dataclass(frozen=True)
class Drawn:
    """What was drawn to be scored: `prompts[i]` (without the identifier) belongs to `subject[i]`."""

    subject: list[Image.Image]
    prompts: list[str]
    plain: list[Image.Image]


Measures = dict[str, float]


def draw(family: Family, plan: Plan) -> Drawn:
    """The validation prompts and plain class pictures, with fixed seeds: the same noise before and after training."""
    validation, each = plan.spec.validation, plan.spec.validation.images
    prompts = [prompt for prompt in plan.validation_prompts for _ in range(each)]
    settings = {"steps": validation.steps, "guidance": validation.guidance_scale, "resolution": plan.resolution}
    subject = family.draw(prompts, [SEED + i for i in range(len(prompts))], **settings)  # type: ignore[arg-type]
    plain = family.draw([plan.class_prompt] * PLAIN, [SEED + i for i in range(PLAIN)], **settings)  # type: ignore[arg-type]
    return Drawn(subject, [prompt for prompt in plan.plain_prompts for _ in range(each)], plain)


class Clip:
    """A CLIP model of transformers."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoTokenizer, CLIPModel

        self.model = _loaded(lambda: CLIPModel.from_pretrained(folder, local_files_only=True), "scoring.clip")
        self.prepare = _processor(folder, "scoring.clip")
        self.tokenizer = _loaded(lambda: AutoTokenizer.from_pretrained(folder, local_files_only=True), "scoring.clip")

    @torch.no_grad()
    def images(self, images: Sequence[Image.Image]) -> Tensor:
        """Unit features (N, D)."""
        pooled = self.model.vision_model(pixel_values=self.prepare(images)).pooler_output
        return normalize(self.model.visual_projection(pooled), dim=1)

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> Tensor:
        """Unit features (N, D)."""
        length = self.model.config.text_config.max_position_embeddings
        tokens = self.tokenizer(
            list(texts), padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        )
        pooled = self.model.text_model(input_ids=tokens.input_ids).pooler_output
        return normalize(self.model.text_projection(pooled), dim=1)


class Dino:
    """A self-supervised ViT of transformers: DINO, DINOv2."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModel

        self.model = _loaded(lambda: AutoModel.from_pretrained(folder, local_files_only=True), "scoring.dino")
        self.prepare = _processor(folder, "scoring.dino")

    @torch.no_grad()
    def images(self, images: Sequence[Image.Image]) -> Tensor:
        """Unit features (N, D) of the class token."""
        return normalize(self.model(pixel_values=self.prepare(images)).last_hidden_state[:, 0], dim=1)


def encoders(folders: Mapping[str, Path]) -> tuple[Clip | None, Dino | None]:
    """The encoders in `folders` ("clip", "dino"), as far as they are named."""
    return (
        Clip(folders["clip"]) if "clip" in folders else None,
        Dino(folders["dino"]) if "dino" in folders else None,
    )


def measure(drawn: Drawn, held_out: Sequence[Image.Image], clip: Clip | None, dino: Dino | None) -> Measures:
    """Every score that can be measured, by its field's name in `Scores`."""
    scores: Measures = {}
    if clip:
        features = clip.images(drawn.subject)
        scores["clip_t"] = float((features * clip.texts(drawn.prompts)).sum(1).mean())
        if held_out:
            scores["clip_i"] = likeness(features, clip.images(held_out))
    if dino and held_out:
        scores["dino"] = likeness(dino.images(drawn.subject), dino.images(held_out))
    encoder = dino or clip
    if encoder:
        plain = encoder.images(drawn.plain)
        scores["div"] = variety(plain)
        if held_out:
            scores["pres"] = likeness(plain, encoder.images(held_out))
    return scores


def likeness(a: Tensor, b: Tensor) -> float:
    """Mean cosine over all pairs of unit rows."""
    return float((a @ b.T).mean())


def variety(features: Tensor) -> float:
    """Mean of 1 − cosine over pairs of different unit rows."""
    others = ~torch.eye(len(features), dtype=torch.bool)
    return float(1 - (features @ features.T)[others].mean())


def as_scores(measures: Measures, base: Measures) -> Scores:
    """The scores as status shows them, beside those of the base before training."""
    shown = {name: f"{value:.3f}" for name, value in measures.items()}
    for name in ("dino", "clip_i"):
        if name in base:
            shown[f"base_{name}"] = f"{base[name]:.3f}"
    return Scores(**shown)


def below_gate(gate: Gate, measures: Measures) -> str | None:
    """Which scores miss the gate, and by how much; None when none does."""
    misses = []
    for name, field in Gate.model_fields.items():
        limit = getattr(gate, name)
        if limit is None:
            continue
        label = field.alias or name
        value = measures.get(name)
        if value is None:
            misses.append(f"{label} was not measured, {limit:g} is asked for")
        elif name == "pres" and value > limit:
            misses.append(f"{label} {value:.3f} is {value - limit:.3f} above {limit:g}")
        elif name != "pres" and value < limit:
            misses.append(f"{label} {value:.3f} is {limit - value:.3f} below {limit:g}")
    return "; ".join(misses) or None


def _loaded(load: Callable, field: str):
    try:
        loaded = load()
    except (OSError, ValueError, KeyError, RuntimeError) as e:
        raise SpecFault(f"{field}: cannot be loaded: {str(e).splitlines()[0][:300]}") from e
    return loaded.eval() if hasattr(loaded, "eval") else loaded


def _processor(folder: Path, field: str) -> Callable[[Sequence[Image.Image]], Tensor]:
    from transformers import AutoImageProcessor

    processor = _loaded(lambda: AutoImageProcessor.from_pretrained(folder, local_files_only=True), field)
    return lambda images: processor(list(images), return_tensors="pt").pixel_values
