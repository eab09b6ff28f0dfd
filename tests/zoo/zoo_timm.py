"""Networks of timm, shrunk by their own arguments."""

from functools import partial

from timm.models.mlp_mixer import MlpMixer, ResBlock
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import nn

import torchvision_operators  # noqa: F401  # before timm, which imports torchvision
from specimen import Specimen, floats

CLASSES = 10


def vit() -> nn.Module:
    return VisionTransformer(
        img_size=16, patch_size=4, embed_dim=32, depth=2, num_heads=2, num_classes=CLASSES
    )


def resmlp() -> nn.Module:
    network = MlpMixer(
        img_size=16,
        patch_size=4,
        embed_dim=32,
        num_blocks=2,
        mlp_ratio=4,
        block_layer=partial(ResBlock, init_values=0.5),
        num_classes=CLASSES,
    )
    network.head.reset_parameters()  # it starts at 0, as the blocks almost do: all answers were 0
    return network


def swin() -> nn.Module:
    return SwinTransformer(
        img_size=16,
        patch_size=2,
        window_size=4,
        embed_dim=16,
        depths=(2, 2),
        num_heads=(2, 4),
        num_classes=CLASSES,
    )


SPECIMENS = [
    Specimen(
        "timm_vit",
        vit,
        floats(3, 16, 16),
        "timm vision transformer with class token and position table, 16 x 16 images",
    ),
    Specimen(
        "timm_resmlp",
        resmlp,
        floats(3, 16, 16),
        "timm ResMLP, whose linear layers mix patches and channels in turn, 16 x 16 images",
    ),
    Specimen(
        "timm_swin",
        swin,
        floats(3, 16, 16),
        "timm Swin transformer with shifted windows folded into the batch, 16 x 16 images",
    ),
]
