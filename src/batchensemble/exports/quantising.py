"""Smaller files: weights as whole numbers of 8 bits."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import Literal, get_args

from batchensemble.exports.onnx_file import onnx_libraries, quietly

Quantisation = Literal["int8"]
QUANTISATIONS = get_args(Quantisation)
ROUNDED_OPERATIONS = (
    "MatMul",
    "Gather",
)  # Gemm becomes MatMul; a table of embeddings is gathered from


def quantised(content: bytes) -> bytes:
    """Return a file whose matrices and tables of embeddings are held in 8 bits.

    A matrix has a scale and a zero for each of its columns. What it is multiplied with is rounded
    to 8 bits as well, by its range in each batch, so that no data are needed here. Fast weights,
    biases, kernels of convolutions and the prediction stay in float32. Whole numbers are unsigned,
    since products with signed ones overflow on processors without an instruction for them
    (https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html).

    Args:
        content: the bytes of an ONNX file.
    """
    onnx_libraries()
    from onnxruntime.quantization import QuantType, quantize_dynamic

    root = logging.getLogger()  # to which it writes advice about files of another kind
    level = root.level
    with tempfile.TemporaryDirectory() as folder, quietly():
        source, target = Path(folder) / "float32.onnx", Path(folder) / "int8.onnx"
        source.write_bytes(content)
        root.setLevel(logging.CRITICAL)
        try:
            quantize_dynamic(
                source,
                target,
                op_types_to_quantize=list(ROUNDED_OPERATIONS),
                per_channel=True,
                weight_type=QuantType.QUInt8,
            )
        finally:
            root.setLevel(level)
        return target.read_bytes()
