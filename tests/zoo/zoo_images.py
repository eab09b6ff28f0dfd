"""Networks of our own for images, volumes and sound: convolutions in most of their forms."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from specimen import Arguments, Specimen, floats, normal, settled


def convolution(inputs: int, outputs: int) -> nn.Sequential:
    """Return the block that most of these networks stack."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


class UNet(nn.Module):
    """Two steps down, two up, and at each level a bridge across."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList([convolution(3, 8), convolution(8, 16)])
        self.bottom = convolution(16, 32)
        self.up = nn.ModuleList([nn.ConvTranspose2d(32, 16, 2, 2), nn.ConvTranspose2d(16, 8, 2, 2)])
        self.merge = nn.ModuleList([convolution(32, 16), convolution(16, 8)])
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        bridges = []
        for block in self.down:
            images = block(images)
            bridges.append(images)
            images = F.max_pool2d(images, 2)
        images = self.bottom(images)
        for up, merge in zip(self.up, self.merge, strict=True):
            images = merge(torch.cat([up(images), bridges.pop()], dim=1))
        return self.head(images)


class Autoencoder(nn.Module):
    """Convolutions that wrap around or mirror at the border, and transposed ones back."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 8, 3, stride=2, padding=1, padding_mode="circular"),
            nn.ELU(),
            nn.Conv2d(8, 16, 3, stride=2, padding=1, padding_mode="reflect"),
        )
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(16, 8, 3, stride=2, padding=1, output_padding=1, groups=2),
            nn.ELU(),
            nn.ConvTranspose2d(8, 1, 4, stride=2, padding=1, bias=False),
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        code = self.encoder(images)
        return self.decoder(code), code


class ParametricConvNet(nn.Sequential):
    """A slope for each channel, and responses that neighbours damp."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.PReLU(8),
            nn.LocalResponseNorm(3),
            nn.BatchNorm2d(8),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 16, 3, padding="same", groups=4, dilation=2),
            nn.PReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(64, 10),
        )


class StandardisedConv2d(nn.Conv2d):
    """A convolution that standardises the weights of each filter before it uses them."""

    def forward(self, images: Tensor) -> Tensor:
        mean = self.weight.mean(dim=(1, 2, 3), keepdim=True)
        deviation = self.weight.std(dim=(1, 2, 3), keepdim=True)
        return self._conv_forward(images, (self.weight - mean) / (deviation + 1e-5), self.bias)


class StandardisedConvNet(nn.Module):
    """Weight standardisation and group norm, the pair that replaces batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            StandardisedConv2d(3, 8, 3, padding=1),
            nn.GroupNorm(2, 8),
            nn.ReLU(),
            StandardisedConv2d(8, 16, 3, stride=2, padding=1),
            nn.GroupNorm(4, 16),
            nn.ReLU(),
        )
        self.head = nn.Linear(16, 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images).mean(dim=(2, 3)))


class Siamese(nn.Module):
    """One encoder for two images; what they differ in says whether they match."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            convolution(1, 8), nn.MaxPool2d(2), convolution(8, 8), nn.Flatten(), nn.Linear(128, 16)
        )
        self.head = nn.Linear(16, 1)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return self.head((self.encoder(left) - self.encoder(right)).abs()).squeeze(1)


class Volumes(nn.Module):
    """Convolutions in three dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv3d(1, 4, 3, padding=1),
            nn.BatchNorm3d(4),
            nn.ReLU(),
            nn.MaxPool3d(2),
            nn.Conv3d(4, 8, (1, 3, 3), padding=(0, 1, 1)),
            nn.InstanceNorm3d(8),
            nn.SiLU(),
            nn.AdaptiveAvgPool3d(2),
        )
        self.head = nn.Linear(64, 3)

    def forward(self, volumes: Tensor) -> Tensor:
        return self.head(self.features(volumes).flatten(1))


class SpeechBlock(nn.Module):
    """A dilated convolution by channel and one across channels, around a bridge."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(
            channels, channels, 3, padding=dilation, dilation=dilation, groups=channels
        )
        self.norm = nn.GroupNorm(4, channels)
        self.pointwise = nn.Conv1d(channels, channels, 1)

    def forward(self, sound: Tensor) -> Tensor:
        return sound + self.pointwise(F.gelu(self.norm(self.depthwise(sound))))


class Speech(nn.Module):
    """Words in a wave; the last block runs twice, and once more under a second name."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv1d(1, 16, 8, stride=4)
        self.norm = nn.InstanceNorm1d(16, affine=True)
        self.blocks = nn.ModuleList([SpeechBlock(16, 1), SpeechBlock(16, 2)])
        self.again = self.blocks[1]
        self.head = nn.Conv1d(16, 6, 1)

    def forward(self, waves: Tensor) -> Tensor:
        sound = torch.relu(self.norm(self.stem(waves)))
        for block in (*self.blocks, self.blocks[1], self.again):
            sound = block(sound)
        return self.head(sound).amax(dim=2)


def two_images(batch: int) -> Arguments:
    return (normal(batch, 1, 8, 8), normal(batch, 1, 8, 8, argument=1)), {}


SPECIMENS = [
    Specimen(
        "unet",
        settled(UNet, floats(3, 16, 16)),
        floats(3, 16, 16),
        "U-Net of two levels, 16 x 16 images",
    ),
    Specimen(
        "autoencoder",
        Autoencoder,
        floats(1, 16, 16),
        "convolutional autoencoder with circular and reflected borders, image and code out",
    ),
    Specimen(
        "parametric_convnet",
        settled(ParametricConvNet, floats(3, 8, 8)),
        floats(3, 8, 8),
        "PReLU, local response norm, batch norm and a grouped, dilated convolution",
    ),
    Specimen(
        "standardised_convnet",
        StandardisedConvNet,
        floats(3, 8, 8),
        "a subclass of Conv2d with its own forward, weight standardisation, and group norm",
    ),
    Specimen(
        "siamese",
        settled(Siamese, two_images),
        two_images,
        "one convolutional encoder used for two inputs",
    ),
    Specimen(
        "volumes",
        settled(Volumes, floats(1, 8, 8, 8)),
        floats(1, 8, 8, 8),
        "3-D convolutions, batch and instance norm",
    ),
    Specimen(
        "speech",
        Speech,
        floats(1, 128),
        "1-D convolutions, dilated and by channel, group and instance norm, a block used 3 times",
    ),
]
