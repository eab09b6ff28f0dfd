"""``export``: an ensemble as one file that predicts with its uncertainty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from batchensemble.core.arguments import one_of, positive_number
from batchensemble.ensembles import Ensemble
from batchensemble.ensembles.checks import check_ensemble, check_inputs_fit
from batchensemble.exports import distilled_graphs  # noqa: F401 - which registers their losses
from batchensemble.exports.checking import TOLERANCE
from batchensemble.exports.graph_inputs import AxisNames, GraphInputs, read_example
from batchensemble.exports.member_graph import LAYOUTS, WeightLayout
from batchensemble.exports.onnx_file import onnx_libraries
from batchensemble.exports.prediction_graph import AnswerRule, prediction_graph, uncertainty_for
from batchensemble.exports.quantising import QUANTISATIONS, Quantisation
from batchensemble.exports.result import Exported
from batchensemble.exports.subject import subject_of
from batchensemble.exports.writing import ExportPlan, write_export
from batchensemble.losses import EnsembleLoss, Loss
from batchensemble.predictions.predict import model_loss

OUTPUTS = ("mean", "total", "aleatoric", "epistemic")
SUFFIXES = (".onnx", ".pt2")


def export(
    model: Any,
    path: str | Path,
    example: Any,
    outputs: Sequence[str] | Literal["raw"] = OUTPUTS,
    members: bool = False,
    layout: WeightLayout = "auto",
    quantise: Quantisation | None = None,
    *,
    quantiles: Sequence[float] = (),
    threshold: AnswerRule | None = None,
    loss: str | Loss | None = None,
    dynamic: AxisNames | None = None,
    tolerance: float = TOLERANCE,
) -> Exported:
    """Write an ensemble into one file, with its calibration and its uncertainty inside.

    The file takes batches of any size and needs nothing of this library. It is run before it is
    written, at batches of 1, 3 and 64 examples, and must give what :func:`batchensemble.predict`
    gives. What has no place in a graph is in its metadata, as JSON under the key
    ``"batchensemble"``: class names, units, the threshold.

    ================  ===========================================  ================================
    output            of classes                                   of numbers
    ================  ===========================================  ================================
    ``"mean"``        probabilities ``[batch, classes, ...]``      mean ``[batch, ...]``
    ``"total"``       entropy of the mean, nats                    variance of the mixture
    ``"aleatoric"``   mean of the members' entropies, nats         mean of the members' variances
    ``"epistemic"``   mutual information, nats                     variance of the members' means
    ``"confidence"``  largest probability
    ``"label"``       number of the most probable class
    ``"quantiles"``                                                ``[batch, levels, ...]``
    ``"members"``     ``[batch, members, classes, ...]``           their means
    ``"answer"``      whether the threshold accepts the example    the same
    ================  ===========================================  ================================

    With several labels an example all are label by label. With a class for each token or pixel,
    those are further axes at the end. A :class:`~batchensemble.losses.Standardised` loss is put
    back into the unit of the targets.

    Args:
        model: any ensemble, or a fitted estimator for tables: its file takes the columns by name,
            and a threshold of its ``decide`` is inside.
        path: of the file: ``.onnx``, or ``.pt2`` for ``torch.export.load``.
        example: inputs as :func:`batchensemble.predict` takes them; a few examples are enough, of
            a table some rows that show what it holds.
        outputs: names of the outputs, of the table above; ``"raw"``: the members' outputs as the
            network gives them, ``[batch, members, ...]``.
        members: whether each member's prediction is an output, too; false by default.
        layout: ``"shared"`` writes the shared weights once, ``"merged"`` the weights of each
            member; ``"auto"``, the default, merges where most weights are kernels of convolutions.
        quantise: ``"int8"`` holds matrices and embeddings in 8 bits, a quarter of the bytes of an
            ``.onnx`` file. It is checked in float32 before; what 8 bits change is in the result's
            differences. By default nothing is rounded.
        quantiles: levels of quantiles of numbers, which become an output; none by default.
        threshold: when to answer, as :func:`batchensemble.threshold_for` found it, which becomes
            the output ``answer``; none by default.
        loss: that the outputs were trained with; by default the one of ``fit``, else the
            cross-entropy of logits.
        dynamic: axes beside the batch whose length may vary, such as
            ``{"tokens": {1: "sequence"}}``; none by default.
        tolerance: the largest difference to torch that is allowed, 1e-4 by default; more for models
            in half precision.

    Returns:
        The inputs, the outputs and the differences to torch; it prints itself.

    Raises:
        ImportError: ``onnx``, ``onnxscript`` or ``onnxruntime`` is missing.
        TypeError: the model is no ensemble, or its loss does not define a prediction.
        ValueError: an argument does not fit the model.
        batchensemble.exports.checking.ExportError: the network cannot be traced, or the file gives
            other numbers than torch. No file is left then, and an earlier one is unchanged.
    """
    path = Path(path)
    one_of("layout", layout, LAYOUTS)
    if path.suffix not in SUFFIXES:
        raise ValueError(f"path must end in {' or '.join(SUFFIXES)}, got {str(path)!r}")
    if quantise is not None:
        one_of("quantise", quantise, QUANTISATIONS)
        if path.suffix != ".onnx":
            raise ValueError(f"quantise={quantise!r} needs a path that ends in .onnx")
    if path.suffix == ".onnx":
        onnx_libraries()  # before anything is traced
    subject = subject_of(model, example)
    check_ensemble(subject.model)
    found = model_loss(subject.model, loss)
    rule = subject.rule if threshold is None else threshold
    plan = _plan(subject.model, subject.example, outputs, members, quantiles, rule, found, dynamic)
    plan = replace(
        plan,
        table=subject.table,
        extra=subject.extra,
        notes=subject.notes(path.suffix),
        tolerance=positive_number("tolerance", tolerance),
        quantise=quantise,
    )
    return write_export(plan, path, layout)


def _plan(
    model: Ensemble,
    example: Any,
    outputs: Sequence[str] | Literal["raw"],
    members: bool,
    quantiles: Sequence[float],
    threshold: AnswerRule | None,
    loss: EnsembleLoss,
    dynamic: AxisNames | None,
) -> ExportPlan:
    inputs = GraphInputs.of(model, example, dynamic)
    check_inputs_fit(model, read_example(model, example), any_output=True)
    if isinstance(outputs, str) and outputs == "raw":
        if members or quantiles or threshold is not None:
            raise ValueError(
                "outputs='raw' gives the members' outputs alone; leave members, quantiles and "
                "threshold out"
            )
        return ExportPlan(model, inputs, None, (), loss)
    graph = prediction_graph(loss, model.calibrator, tuple(quantiles))
    if quantiles and "quantiles" not in graph.choices:
        raise ValueError(f"quantiles are those of numbers, and the model predicts {graph.kind}")
    names = [*([outputs] if isinstance(outputs, str) else outputs)]
    names += ["quantiles"] * bool(quantiles) + ["members"] * members
    for name in names:
        one_of("outputs", name, graph.choices)
    if threshold is not None:
        uncertainty_for(threshold, graph)
        names.append("answer")
    return ExportPlan(
        model, inputs, graph, tuple(dict.fromkeys(names)), loss, tuple(quantiles), threshold
    )
