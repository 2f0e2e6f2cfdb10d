"""A U-Net of so few layers that it is soon compiled."""

from pathlib import Path

import torch
from diffusers import UNet2DConditionModel


def save_unet(folder: Path) -> None:
    """Random weights for the example base's other parts, in diffusers' layout; the same each time."""
    torch.manual_seed(0)
    UNet2DConditionModel(
        sample_size=8,
        in_channels=8,
        out_channels=8,
        layers_per_block=1,
        block_out_channels=(16,),
        norm_num_groups=4,
        down_block_types=("CrossAttnDownBlock2D",),
        mid_block_type=None,
        up_block_types=("UpBlock2D",),
        attention_head_dim=2,
        cross_attention_dim=96,
    ).save_pretrained(folder)
