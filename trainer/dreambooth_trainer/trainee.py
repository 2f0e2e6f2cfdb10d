"""What is trained, as one module, so that DDP, accumulation and clipping see one thing."""

import hashlib

import torch
from torch import Tensor, nn

from dreambooth_trainer.config import Plan
from dreambooth_trainer.family import StableDiffusion
from dreambooth_trainer.lora import add_adapters
from dreambooth_trainer.stream import seed_of


class Trainee(nn.Module):
    """The U-Net, and the text encoder when it trains too."""

    def __init__(self, unet: nn.Module, text_encoder: nn.Module | None) -> None:
        super().__init__()
        self.unet = unet
        self.text_encoder = text_encoder

    def forward(self, noisy: Tensor, timesteps: Tensor, text: Tensor) -> Tensor:
        """The U-Net's prediction, of `noisy`'s shape (N, C, h, w).

        `text` has a row for each of P captions, which serve N/P consecutive samples each: token ids (P, L) when the
        text encoder trains, else its hidden states (P, L, D). A caption is encoded once, however many share it.
        """
        states = self.text_encoder(text)[0] if self.text_encoder is not None else text
        each = len(noisy) // len(states)
        # Not a gather: the sum that `expand` is differentiated to has one order, so that runs can be compared by hash.
        shared = states.unsqueeze(1).expand(-1, each, -1, -1).flatten(0, 1)
        return self.unet(noisy, timesteps, shared, return_dict=False)[0]

    def trainable(self) -> dict[str, nn.Parameter]:
        """The trained parameters by name."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def digest(self) -> str:
        """`sha256:<hex>` over the trained weights, by name."""
        found = hashlib.sha256()
        for name, parameter in sorted(self.trainable().items()):
            found.update(name.encode() + parameter.detach().float().cpu().numpy().tobytes())
        return f"sha256:{found.hexdigest()}"


def build(family: StableDiffusion, plan: Plan) -> Trainee:
    """Make the base's parts trainable as the plan says; the same initial weights for the same seed."""
    method, training = plan.spec.method, plan.spec.training
    torch.manual_seed(seed_of("weights", training.seed))
    text_encoder = family.text_encoder if method.train_text_encoder else None
    if plan.full:
        for part in (family.unet, text_encoder):
            if part is not None:
                part.requires_grad_(True)
    else:
        add_adapters(family.unet, text_encoder, method.lora)
    if training.gradient_checkpointing:
        family.unet.enable_gradient_checkpointing()
        if text_encoder is not None:
            text_encoder.gradient_checkpointing_enable()
    if plan.device == "cuda":
        _slim(family, plan)
    trainee = Trainee(family.unet, text_encoder)
    trainee.train()
    return trainee


def _slim(family: StableDiffusion, plan: Plan) -> None:
    """On a GPU, keep what is frozen in the precision of the computation."""
    family.unet.to(memory_format=torch.channels_last)
    if plan.precision == "no":
        return
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[plan.precision]
    family.autocast = dtype
    for part in (family.unet, family.text_encoder):
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
