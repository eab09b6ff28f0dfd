"""How each library is asked for an ensemble, as its documentation says."""

# ruff: noqa: D102  (Library says what the methods do)
from __future__ import annotations

import torch
from torch import Tensor, nn

MEMBERS = 4


class Library:
    """How one library is asked to do what its documentation says.

    Attributes:
        package: its name on PyPI.
        root: where in the converted network the caller's network is.
    """

    package: str
    root = ""

    @staticmethod
    def convert(net: nn.Module, x: Tensor) -> nn.Module:
        """Return the ensemble of ``net``; ``x`` are inputs, for those who need to look."""
        raise NotImplementedError

    @staticmethod
    def run(model: nn.Module, x: Tensor) -> Tensor:
        """Return what the library answers when every member sees ``x``."""
        return model(x)

    @staticmethod
    def by_member(y: Tensor) -> Tensor:
        """Return the answer as ``[batch, members, ...]``."""
        return y

    @classmethod
    def alike(cls, net: nn.Module, x: Tensor, *, by_hand: bool) -> nn.Module:
        """Return an ensemble whose fast weights are 1.

        Args:
            net: the network.
            x: inputs for it.
            by_hand: copy the network's weights and biases into the ensemble, too.
        """
        state = {name: value.clone() for name, value in net.state_dict().items()}
        model = cls.convert(net, x)
        with torch.no_grad():
            for name, value in own_tensors(cls, model, state).items():
                if "bias" not in name:
                    value.fill_(1.0)
            if by_hand:
                copy_by_hand(cls, model, state)
        return model

    @staticmethod
    def member(model: nn.Module, index: int) -> nn.Module | None:
        """Return a member as a plain network, or ``None`` where the documentation has no way."""
        return None


class Ours(Library):
    """This project."""

    package = "batchensemble"
    root = "network."

    @staticmethod
    def convert(net: nn.Module, x: Tensor) -> nn.Module:
        import batchensemble as be

        return be.BatchEnsemble(net, members=MEMBERS)

    @classmethod
    def alike(cls, net: nn.Module, x: Tensor, *, by_hand: bool) -> nn.Module:
        import batchensemble as be

        return be.BatchEnsemble(net, members=MEMBERS, init="ones")

    @staticmethod
    def member(model: nn.Module, index: int) -> nn.Module | None:
        return model.member(index)


class TorchUncertainty(Library):
    """Its wrapper, told to convert the layers and to show each member the whole batch."""

    package = "torch-uncertainty"
    root = "core_model."

    @staticmethod
    def convert(net: nn.Module, x: Tensor) -> nn.Module:
        from torch_uncertainty.methods import batch_ensemble

        return batch_ensemble(
            net, num_estimators=MEMBERS, repeat_training_inputs=True, convert_layers=True
        )

    @staticmethod
    def by_member(y: Tensor) -> Tensor:
        return y.unflatten(0, (MEMBERS, -1)).transpose(0, 1)


class TabM(Library):
    """Its function for linear layers, and its view of the members before the first of them."""

    package = "tabm"

    @staticmethod
    def convert(net: nn.Module, x: Tensor) -> nn.Module:
        import tabm

        first = first_linear_layer(net, x)  # the name of the nn.Linear that is called first
        tabm.batchensemble_linear_layers_(net, k=MEMBERS, scaling_init="random-signs")
        if first is not None:
            view = tabm.EnsembleView(k=MEMBERS)
            net.set_submodule(first, nn.Sequential(view, net.get_submodule(first)))
        return net


class Probly(Library):
    """Its transformation, told to keep the weights, as its example does."""

    package = "probly"

    @staticmethod
    def convert(net: nn.Module, x: Tensor) -> nn.Module:
        from probly.transformation import batchensemble

        return batchensemble(
            net, num_members=MEMBERS, use_base_weights=True, predictor_type="logit_classifier"
        )

    @staticmethod
    def run(model: nn.Module, x: Tensor) -> Tensor:
        from probly.predictor import predict

        return predict(model, x).tensor

    @staticmethod
    def by_member(y: Tensor) -> Tensor:
        return y.transpose(0, 1)


LIBRARIES: dict[str, type[Library]] = {
    library.package: library for library in (Ours, TorchUncertainty, TabM, Probly)
}


def first_linear_layer(net: nn.Module, x: Tensor) -> str | None:
    """Return the name of the linear layer that ``net`` calls first."""
    called: list[str] = []
    hooks = [
        module.register_forward_hook(lambda *_, name=name: called.append(name))
        for name, module in net.named_modules()
        if isinstance(module, nn.Linear)
    ]
    net(x)
    for hook in hooks:
        hook.remove()
    return called[0] if called else None


def own_tensors(
    library: type[Library], model: nn.Module, original: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Return the parameters that members own, by name in the network.

    These are the ones with an axis of M that the network does not have.
    """
    found = {}
    for name, parameter in model.named_parameters():
        known = original.get(name.removeprefix(library.root))
        if MEMBERS in parameter.shape and (known is None or known.shape != parameter.shape):
            found[name.removeprefix(library.root)] = parameter
    return found


def owner(name: str, layers: dict[str, nn.Module]) -> str | None:
    """Return the layer of the original that a parameter bends: the longest name it starts with."""
    flat = name.replace(".", "_")  # a twin may flatten the names of what is beneath it
    fitting = [layer for layer in layers if flat.startswith(layer.replace(".", "_") + "_")]
    return max(fitting, key=len, default=None)


def copy_by_hand(library: type[Library], model: nn.Module, state: dict[str, Tensor]) -> None:
    """Copy weights and biases into the layer of the same name, as a careful user could."""
    layers = {name.rpartition(".")[0]: nn.Identity() for name in state}
    for name, parameter in model.named_parameters():
        layer = owner(name.removeprefix(library.root), layers)
        for part in ("weight", "bias"):
            value = state.get(f"{layer}.{part}")
            if value is None or part != name.rpartition(".")[2]:
                continue
            if parameter.shape == value.shape or parameter.shape == (MEMBERS, *value.shape):
                parameter.copy_(value.expand(parameter.shape))
