"""The large libraries, loaded at once: nearly all of the time between a process's start and its first step."""

from functools import cache

from dreambooth_api import imports


@cache
def load(compiler: bool = False) -> None:
    """Import what every training needs. `compiler`: torch's compiler is wanted."""
    with imports.lean(compiler=compiler):
        import accelerate  # noqa: F401
        import torch  # noqa: F401
        from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel  # noqa: F401
        from peft import LoraConfig  # noqa: F401
        from transformers import CLIPTextModel, CLIPTokenizer  # noqa: F401

        import dreambooth_trainer.loop  # noqa: F401
