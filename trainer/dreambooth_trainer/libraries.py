"""The large libraries, loaded at once: nearly all of the time between a process's start and its first step."""

import atexit
import gc
from functools import cache


@cache
def load() -> None:
    """Import what every training needs, with the collection of garbage at rest.

    An import makes some 800,000 objects that stay, and the collector goes through them again and again: without it
    the imports take 4 to 8 % less of the processor. Then they are set aside, so that steps are not held up by them.
    """
    gc.disable()
    try:
        import accelerate  # noqa: F401
        import peft  # noqa: F401
        import torch  # noqa: F401
        from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel  # noqa: F401
        from transformers import CLIPTextModel, CLIPTokenizer  # noqa: F401
    finally:
        gc.freeze()
        gc.enable()
        # What is set aside at the very end looks like a leak to some extensions, which print that.
        atexit.register(gc.unfreeze)
