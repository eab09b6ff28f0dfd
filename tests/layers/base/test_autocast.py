"""Twins in single precision and under autocast."""

import pytest
import torch

from catalogue import ALL_NORMS, RANK_ONE
from reference import MEMBERS, OPTIONS, build, joined, parts_of, tensors_in

ALL = {**RANK_ONE, **ALL_NORMS}
EVERY = pytest.mark.parametrize("case", ALL.values(), ids=ALL)
FIRST_AND_LAST = pytest.mark.parametrize("options", [{}, [*OPTIONS.values()][-1]], ids=["*", "+"])

LOW = [
    *("linear", "linear on tokens", "Conv1D of transformers"),
    *("conv 1d", "depthwise conv 2d", "transposed conv 1d"),
    *("attention", "attention, batch first", "embedding"),
    *("layer norm", "rms norm", "group norm", "instance norm 1d"),
    *("slopes of channels", "one slope", "batch norm 1d", "batch norm 2d"),
]


def cast(value, dtype):
    """Return nested values with floating ones in another type."""
    if isinstance(value, tuple):
        return tuple(cast(each, dtype) for each in value)
    floating = isinstance(value, torch.Tensor) and value.is_floating_point()
    return value.detach().to(dtype) if floating else value


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@EVERY
def test_a_twin_can_be_moved_to_another_precision(case):
    twin, rows = build(case.make()).eval(), joined(parts_of(case, 2), case.axes)
    expected = twin(*rows)
    twin.to(torch.float32)
    low = twin(*cast(rows, torch.float32))
    for got, exact in zip(tensors_in(low), tensors_in(expected), strict=True):
        assert got.dtype == torch.float32
        torch.testing.assert_close(got.double(), exact, rtol=1e-2, atol=1e-3)
    for name, value in twin.member(0).named_parameters():
        assert value.dtype == torch.float32, name


@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")  # RMSNorm's own
@pytest.mark.parametrize("half_input", [False, True])
@FIRST_AND_LAST
@pytest.mark.parametrize("name", LOW)
def test_under_autocast_a_twin_returns_what_its_layer_does(name, options, half_input):
    torch.set_default_dtype(torch.float32)
    case = ALL[name]
    twin = build(case.make(), **options).eval()
    parts = [case.inputs(2) for _ in range(MEMBERS)]
    if half_input:
        parts = [cast(part, torch.bfloat16) for part in parts]
    with torch.autocast("cpu", torch.bfloat16):
        outputs = tensors_in(twin(*joined(parts, case.axes)))
        loop = [twin.member(i)(*part) for i, part in enumerate(parts)]
    for got, expected in zip(outputs, tensors_in(joined(loop, case.output_axes)), strict=True):
        assert got.dtype == expected.dtype
        torch.testing.assert_close(got.float(), expected.float(), rtol=0.1, atol=0.1)
    outputs[0].float().pow(2).sum().backward()
    for parameter in twin.parameters():
        assert parameter.grad.dtype == torch.float32
        assert parameter.grad.isfinite().all()
