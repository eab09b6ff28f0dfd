"""Import torchvision beside a torch that its compiled operators don't load in.

The wheel that comes with a plain ``pip install`` is built for CUDA. Beside a CPU-only torch its
import ends at the first operator that it wants to describe; its networks use none of them. So we
declare those, without code, where they are missing. To be imported before anything that imports
torchvision, as timm, transformers and torchmetrics do.
"""

import torch

try:
    import torchvision  # noqa: F401
except RuntimeError:  # operator torchvision::nms does not exist
    DECLARED = torch.library.Library("torchvision", "DEF")  # they go away with this object
    for name in ("nms", "qnms"):
        DECLARED.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
