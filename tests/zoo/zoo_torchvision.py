"""Networks of torchvision, with small images and, where they can be told, few channels."""

from torch import nn
from torchvision.models import convnext, densenet, efficientnet, mobilenet, resnet, shufflenetv2
from torchvision.models.segmentation import lraspp_mobilenet_v3_large

import torchvision_operators  # noqa: F401  # before torchvision
from specimen import Specimen, floats, settled

CLASSES = 10
IMAGES = floats(3, 32, 32)


def convnext_of_three_stages() -> nn.Module:
    """Return a ConvNeXt of the library's blocks: the smallest that it ships has 28 M weights."""
    stages = [(16, 32, 2), (32, 64, 2), (64, None, 1)]  # channels in, channels out, blocks
    return convnext.ConvNeXt(
        [convnext.CNBlockConfig(*stage) for stage in stages],
        stochastic_depth_prob=0.1,
        num_classes=CLASSES,
    )


def densenet_of_three_blocks() -> nn.Module:
    return densenet.DenseNet(
        growth_rate=8, block_config=(2, 3, 2), num_init_features=16, num_classes=CLASSES
    )


SPECIMENS = [
    Specimen(
        "resnet18",
        settled(lambda: resnet.resnet18(num_classes=CLASSES), IMAGES),
        IMAGES,
        "torchvision ResNet-18, 32 x 32 images",
    ),
    Specimen(
        "mobilenet_v3_small",
        settled(lambda: mobilenet.mobilenet_v3_small(num_classes=CLASSES), IMAGES),
        IMAGES,
        "torchvision MobileNetV3-small with squeeze-and-excitation, 32 x 32 images",
    ),
    Specimen(
        "efficientnet_b0",
        settled(lambda: efficientnet.efficientnet_b0(num_classes=CLASSES), IMAGES),
        IMAGES,
        "torchvision EfficientNet-B0 with stochastic depth, 32 x 32 images",
    ),
    Specimen(
        "shufflenet_v2",
        settled(lambda: shufflenetv2.shufflenet_v2_x0_5(num_classes=CLASSES), IMAGES),
        IMAGES,
        "torchvision ShuffleNetV2 x0.5, which shuffles channels by a view, 32 x 32 images",
    ),
    Specimen(
        "densenet",
        settled(densenet_of_three_blocks, IMAGES),
        IMAGES,
        "torchvision DenseNet of three small blocks, 32 x 32 images",
    ),
    Specimen(
        "convnext",
        convnext_of_three_stages,
        IMAGES,
        "torchvision ConvNeXt of three small stages with layer scale, 32 x 32 images",
    ),
    Specimen(
        "lraspp",
        settled(
            lambda: lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=5),
            IMAGES,
        ),
        IMAGES,
        "torchvision LR-ASPP segmentation on MobileNetV3-large, a dictionary out, 32 x 32 images",
    ),
]
