"""The zoo: all networks that the converter must take, by name."""

import zoo_attention
import zoo_images
import zoo_sequences
import zoo_tables
import zoo_timm
import zoo_torchvision
import zoo_transformers
from specimen import Specimen

CAGES = (
    zoo_torchvision,
    zoo_timm,
    zoo_transformers,
    zoo_images,
    zoo_sequences,
    zoo_attention,
    zoo_tables,
)
ZOO: dict[str, Specimen] = {each.name: each for cage in CAGES for each in cage.SPECIMENS}
