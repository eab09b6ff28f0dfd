"""All members in one graph: from the tensors of a batch to ``[batch, members, ...]``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from batchensemble.core.pytree import Path, leaves
from batchensemble.ensembles import MIMO, Ensemble
from batchensemble.exports.graph_inputs import GraphInputs
from batchensemble.exports.prediction_graph import AnswerRule, PredictionGraph, uncertainty_for
from batchensemble.layers import Twin

WeightLayout = Literal["auto", "shared", "merged"]
LAYOUTS = get_args(WeightLayout)
Way = Literal["together", "in turn", "copies", "code of copies"]
OF_COPIES = ("copies", "code of copies")
PREFERRED = ("logits", "prediction_logits", "last_hidden_state")  # of networks with several outputs


class MemberGraph(nn.Module):
    """A module that a tracer can follow: the members' outputs, and what they predict.

    Args:
        model: the ensemble, without its calibrator.
        inputs: the inputs of the graph.
        way: how the members run: ``"together"``, in one pass as in the ensemble; ``"in turn"``,
            one after the other with their weights bent in the graph; ``"copies"``, the same with
            weights of their own; ``"code of copies"``, these read by torch's compiler, which
            follows a ``len(x)`` that tracing takes for a constant.
        prediction: what becomes of the outputs; ``None``: nothing.
        names: which of its results are returned, in this order.
        rule: a threshold that adds the result ``answer``.
    """

    def __init__(
        self,
        model: Ensemble,
        inputs: GraphInputs,
        way: Way,
        prediction: PredictionGraph | None,
        names: Sequence[str],
        rule: AnswerRule | None = None,
    ) -> None:
        super().__init__()
        self.way, self.prediction, self.rule = way, prediction, rule
        self.inputs = inputs
        self.copies: nn.ModuleList | None = None
        self.model: Ensemble | None = None
        if way in OF_COPIES:
            self.copies = nn.ModuleList(model.member(index) for index in range(model.members))
        else:
            self.model = model
        self.places = output_axes(model, inputs)
        self.names = (
            tuple(names) if prediction is not None else tuple(map(output_name, self.places))
        )
        self.eval()

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return the results in the order of their names."""
        outputs = self.outputs(tensors)
        if self.prediction is None:
            return tuple(outputs.values())
        found = self.prediction(chosen_output(outputs))
        if self.rule is not None:
            score = found[uncertainty_for(self.rule, self.prediction)]
            if self.rule.by == "confidence":
                score = 1 - score
            found["answer"] = score < self.rule.value
        return tuple(found[name] for name in self.names)

    def outputs(self, tensors: Sequence[Tensor]) -> dict[Path, Tensor]:
        """Return each tensor among the outputs as ``[batch, members, ...]``, by its path."""
        self.inputs.equate(tensors)
        arguments = self.inputs.filled(tensors)
        if self.way == "together":
            assert self.model is not None
            args, kwargs = arguments.split()
            outputs = dict(leaves(self.model(*args, **kwargs)))
            return {path: outputs[path] for path in self.places}
        if self.copies is not None:
            of_each = [arguments.call(copy) for copy in self.copies]
        else:
            assert self.model is not None
            of_each = [self.model.run_member(m, arguments) for m in range(self.model.members)]
        parts = [dict(leaves(each)) for each in of_each]
        return {
            path: torch.stack([part[path].movedim(axis, 0) for part in parts], 1)
            for path, axis in self.places.items()
        }


def output_axes(model: Ensemble, inputs: GraphInputs) -> dict[Path, int]:
    """Return the axis of the batch of each tensor that one member returns, by its path.

    Found from batches of two sizes. What is not per example, such as a loss, is left out.

    Raises:
        ValueError: nothing is per example.
    """
    sizes = inputs.size, inputs.size + 1
    one = model.member(0).eval()
    first, second = (dict(leaves(inputs.resized(size).call(one))) for size in sizes)
    axes = {}
    for path, output in first.items():
        if isinstance(output, Tensor) and output.shape != second[path].shape:
            pairs = zip(output.shape, second[path].shape, strict=True)
            axes[path] = next(axis for axis, (a, b) in enumerate(pairs) if (a, b) == sizes)
    if not axes:
        raise ValueError("the network must return a tensor with an axis of the batch")
    return axes


def chosen_output(outputs: dict[Path, Tensor]) -> Tensor:
    """Return the output that is a prediction, where a network returns several.

    Raises:
        ValueError: it is not clear which.
    """
    if len(outputs) == 1:
        return next(iter(outputs.values()))
    for name in PREFERRED:
        if (name,) in outputs:
            return outputs[(name,)]
    raise ValueError(
        f"the network returns {', '.join(map(output_name, outputs))}: wrap it in a module that "
        "returns the one to predict from, or give outputs='raw' for all of them"
    )


def output_name(path: Path) -> str:
    """Return the name of one of the outputs of a network."""
    named = bool(path) and isinstance(path[0], str)
    return ".".join(map(str, path if named else ("output", *path)))


def ways(model: Ensemble, layout: WeightLayout) -> tuple[Way, ...]:
    """Return how the members may run in the graph, the best way first.

    Convolutions are followed by normalisation, which a runtime folds into weights that are
    constants; linear layers are bound by reading theirs, and read them once for all members.
    """
    if isinstance(model, MIMO) or model.members == 1:
        return ("together",)
    if layout == "merged" or (layout == "auto" and has_convolutions(model)):
        return ("copies", "code of copies")
    shared: tuple[Way, ...] = ("in turn",) if model.one_by_one else ("together", "in turn")
    return (*shared, "code of copies") if layout == "auto" else shared


def has_convolutions(model: nn.Module) -> bool:
    """Tell whether most of the members' shared weights are kernels of convolutions."""
    kernels = others = 0
    for module in model.modules():
        if isinstance(module, Twin):
            is_kernel = isinstance(module.shell, _ConvNd)
            for name, parameter in module.named_parameters(recurse=False):
                if name in module.own or parameter.dim() < 2:
                    continue
                if is_kernel:
                    kernels += parameter.numel()
                else:
                    others += parameter.numel()
    return kernels > others
