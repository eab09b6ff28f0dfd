"""Some members trained by themselves: as a smaller ensemble, whose weights are then put back."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

from torch.optim import Optimizer

from batchensemble.ensembles import Ensemble
from batchensemble.ensembles.checks import check_ensemble, place_of
from batchensemble.ensembles.freezing import set_trained
from batchensemble.ensembles.member_weights import (
    changed_shared,
    hold_statistics,
    own_parameters,
    put_members,
    put_shared,
)
from batchensemble.losses import ClassLoss, EnsembleLoss
from batchensemble.training.checkpoints.store import CheckpointError
from batchensemble.training.checks import check_trainable
from batchensemble.training.distributed.processes import connect
from batchensemble.training.plan import TrainingPlan

NAMES = ("feature_names", "target_names", "class_names")


class ChosenMembers:
    """A copy of some members that is trained in their place, and put back at the end.

    So nothing else of the ensemble can change: neither by weight decay or momentum nor by running
    statistics. As a context, which also an error leaves with the weights that the copy has then,
    unless it came before :meth:`check`.

    Args:
        model: the whole ensemble.
        members: numbers of the members to train.
        plan: the options.
        shared: train, and put back, what the members share, too.

    Attributes:
        part: the smaller ensemble to train.

    Raises:
        TypeError: it is no ensemble.
        ValueError: a member is not there, its weights cannot be had alone, or an option does not go
            with training some members.
    """

    def __init__(
        self, model: Ensemble, members: Sequence[int], plan: TrainingPlan, *, shared: bool = False
    ) -> None:
        check_ensemble(model)
        check_trainable(model)
        if members and max(members) >= model.members:
            raise ValueError(
                f"members must be numbers from 0 to {model.members - 1}, got {max(members)}"
            )
        _check_options(plan)
        check_same_outputs(model, plan.make_loss())
        # Of several processes the first one's weights count, also those that are not trained here.
        connect(place_of(model)["device"]).broadcast([*model.parameters(), *model.buffers()])
        self.model, self.members, self.shared = model, list(members), shared
        self.part = model.select(self.members)
        self._ready = False
        if not shared:
            own = own_parameters(self.part.network)
            if not any(each.requires_grad for each in own):
                raise ValueError(
                    "members= trains what members own (fast weights, biases, norms, heads), and "
                    f"these own nothing that is trained: {type(model).__name__} of "
                    f"{model.members}; leave members= out, or see train_only"
                )
            set_trained(self.part, {each for each in own if each.requires_grad})
            hold_statistics(self.part.network)

    def __enter__(self) -> ChosenMembers:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._ready:
            return
        put_members(self.model.network, self.part.network, self.members)
        if self.shared:
            put_shared(self.model.network, self.part.network)
        if kind is None:
            self.model.loss, self.model.trained_on = self.part.loss, self.part.trained_on
            for name in NAMES:
                setattr(self.model, name, getattr(self.part, name))

    def check(self) -> None:
        """Raise ``CheckpointError`` where a checkpoint brought other shared weights.

        Called before the first step, when the newest checkpoint has been read.
        """
        changed = None if self.shared else changed_shared(self.model.network, self.part.network)
        if changed is not None:
            raise CheckpointError(
                f"the checkpoint is of members that share another {changed!r}; load the ensemble "
                "as it was when this training began, or give another folder"
            )
        self._ready = True


def check_same_outputs(model: Ensemble, loss: EnsembleLoss) -> None:
    """Raise ``ValueError`` where a loss would give outputs another meaning than the model's has.

    Args:
        model: the whole ensemble; if it was not trained, any loss will do.
        loss: of the members to train.
    """
    before = model.loss
    if before is None:
        return
    alike = type(before) is type(loss)
    if alike and not isinstance(before, ClassLoss):  # class weights change no outputs
        alike = before == loss
    if not alike:
        raise ValueError(
            "members= must train on the loss of the other members, whose outputs are read alike: "
            f"they have {before}, got {loss}"
        )


def _check_options(plan: TrainingPlan) -> None:
    refused = {
        "an optimiser that is made already; give a function that makes it": isinstance(
            plan.optimizer, Optimizer
        ),
        "standardise_targets=True, whose unit is one for all members; standardise y": (
            plan.standardise_targets
        ),
        "strategy='fsdp', which leaves weights in pieces; leave one of them out": (
            plan.strategy == "fsdp"
        ),
    }
    for what, given in refused.items():
        if given:
            raise ValueError(f"members= does not go with {what}")
