"""What is trained, as one module, so that DDP, accumulation and clipping see one thing."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dreambooth_trainer.config import Plan
from dreambooth_trainer.dataset import Group
from dreambooth_trainer.family import Family
from dreambooth_trainer.lora import add_adapters
from dreambooth_trainer.stream import seed_of


class Trainee(nn.Module):
    """The U-Net, and the text encoders when they, or a token of theirs, train too."""

    def __init__(self, family: Family, encoders: Mapping[str, nn.Module] | None = None) -> None:
        super().__init__()
        self.family = family
        self.unet: nn.Module = family.unet
        # With `training.compile`: what calls the U-Net in a step.
        self.program: Callable[..., Any] | None = None
        self.encoder_names = tuple(encoders or ())
        for name, encoder in (encoders or {}).items():
            self.add_module(name, encoder)

    @property
    def encoders(self) -> dict[str, nn.Module]:
        """The text encoders in which something trains, by name."""
        return {name: self.get_submodule(name) for name in self.encoder_names}

    def read(self, prompts: Sequence[str]) -> Tensor:
        """`prompts` as `forward` takes them: token ids when a text encoder trains, else conditioning."""
        return self.family.token_ids(prompts) if self.encoder_names else self.family.encode_text(prompts)

    def forward(self, noisy: Sequence[Tensor], groups: Sequence[Group], text: Tensor) -> list[Tensor]:
        """The U-Net's predictions for the `noisy` latents (N, C, h, w) of each group, of their shapes.

        `text` has a row for each caption, as `read` gives them. A caption is encoded once, however many samples share
        it.
        """
        words = self.family.condition(self.encoders, text) if self.encoder_names else text
        # Not a gather: gradients of rows that are stacked are summed in one order, so that runs compare by hash.
        each = words.unbind(0)
        return [
            self.family.predict(
                self.program or self.unet,
                latents,
                group.timesteps,
                torch.stack([each[row] for row in group.rows]),
                group.sizes,
            )
            for latents, group in zip(noisy, groups, strict=True)
        ]

    def trainable(self) -> dict[str, nn.Parameter]:
        """The trained parameters by name."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def digest(self) -> str:
        """`sha256:<hex>` over the trained weights, by name."""
        found = hashlib.sha256()
        for name, parameter in sorted(self.trainable().items()):
            found.update(name.encode() + parameter.detach().float().cpu().numpy().tobytes())
        return f"sha256:{found.hexdigest()}"


def build(family: Family, plan: Plan) -> Trainee:
    """Make the base's parts trainable as the plan says; the same initial weights for the same seed."""
    method, training = plan.spec.method, plan.spec.training
    unet, encoders = family.unet, family.encoders if method.train_text_encoder or method.learn_token else {}
    trained = encoders if method.train_text_encoder else {}
    # Behind all loading, which may draw random numbers, and what is loaded by now differs from run to run.
    torch.manual_seed(seed_of("weights", training.seed))
    subject = plan.spec.subject
    learned = family.learn(subject.identifier, subject.class_name) if method.learn_token else {}
    if plan.full:
        for part in (unet, *trained.values()):
            part.requires_grad_(True)
    else:
        add_adapters(unet, trained, method.lora)
    for embedding in learned.values():
        embedding.learned.requires_grad_(True)
    if trained:
        _leave_out_what_says_nothing(family, trained)
    if training.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
        for encoder in encoders.values():
            encoder.gradient_checkpointing_enable({"use_reentrant": False})
    if plan.device == "cuda":
        _slim(family, plan)
    trainee = Trainee(family, encoders)
    trainee.train()
    return trainee


def _leave_out_what_says_nothing(family: Family, trained: Mapping[str, nn.Module]) -> None:
    """Freeze what the loss does not reach, which DDP would wait for: layers above the hidden states that are read."""
    unread = family.unread()
    for name, encoder in trained.items():
        for path, parameter in encoder.named_parameters():
            if path.startswith(unread.get(name, ())):
                parameter.requires_grad_(False)


def _slim(family: Family, plan: Plan) -> None:
    """On a GPU, keep what is frozen in the precision of the computation."""
    family.unet.to(memory_format=torch.channels_last)
    if plan.precision == "no":
        return
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[plan.precision]
    family.autocast = dtype
    for part in family.networks:
        for parameter in part.parameters():
            if not parameter.requires_grad:
                parameter.data = parameter.data.to(dtype)


class Ema:
    """An exponential moving average of the trained parameters."""

    def __init__(self, parameters: dict[str, nn.Parameter], decay: float) -> None:
        self.decay = decay
        self.shadow = {name: p.detach().clone() for name, p in parameters.items()}

    def update(self, parameters: dict[str, nn.Parameter], step: int) -> None:
        """Take the parameters after `step` steps in; young averages follow faster."""
        decay = min(self.decay, (1 + step) / (10 + step))
        current = [p.detach() for p in parameters.values()]
        torch._foreach_lerp_(list(self.shadow.values()), current, 1 - decay)

    def swap(self, parameters: dict[str, nn.Parameter]) -> None:
        """Exchange the parameters and their averages."""
        for name, parameter in parameters.items():
            kept = parameter.detach().clone()
            parameter.data.copy_(self.shadow[name])
            self.shadow[name] = kept
