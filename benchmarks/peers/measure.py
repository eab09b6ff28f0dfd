"""One library, one network: convert it, look at what came out, print it as JSON.

    python benchmarks/peers/measure.py probly resnet

``page.py`` runs this once for each pair, so that a crash ends one measurement only.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

if not __package__:  # run as a file: imports start at the root of the repository
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from benchmarks.peers.libraries import LIBRARIES, MEMBERS, Library, own_tensors, owner
from benchmarks.peers.networks import NETWORKS, build

BATCH = 8
TIMED_BATCH = 64
REPETITIONS = 12  # at least, and for at least
SECONDS = 3  # so that a moment in which the machine is busy does not decide


def weighty_layers(net: nn.Module) -> dict[str, nn.Module]:
    """Return the layers that own a matrix or a kernel, by name; norms and lone biases are none."""
    return {
        name: module
        for name, module in net.named_modules()
        if any(parameter.dim() > 1 for parameter in module.parameters(recurse=False))
    }


def of_member(tensor: Tensor, index: int) -> Tensor:
    """Return the part of a tensor that belongs to a member."""
    return tensor.select(list(tensor.shape).index(MEMBERS), index)


def kept_weights(net: nn.Module, model: nn.Module) -> tuple[int, int]:
    """Return how many tensors of weights and biases are in the ensemble, by value, and of how many.

    One counts as kept as it was, transposed, repeated for each member, or cut into the projections
    of an attention or the gates of an LSTM that it packs.
    """
    tensors = [*model.parameters(), *model.buffers()]

    def there(value: Tensor) -> bool:
        forms = [value, value.mT] if value.dim() > 1 else [value]
        forms += [form.expand(MEMBERS, *form.shape) for form in forms]
        return any(torch.equal(form, tensor) for form in forms for tensor in tensors)

    def kept(value: Tensor) -> bool:
        return any(all(map(there, value.chunk(parts))) for parts in (1, 3, 4))

    layers = weighty_layers(net).values()
    values = [value.detach() for layer in layers for value in layer.parameters(recurse=False)]
    return sum(map(kept, values)), len(values)


def measure(library: type[Library], network: str) -> dict[str, Any]:
    """Return everything that ``page.py`` shows of one library and one network."""
    torch.manual_seed(1)  # not that of build, or layers drawn anew would look as if kept
    found: dict[str, Any] = {"layers": len(weighty_layers(build(network)[0]))}
    net, x = build(network)
    model = attempt(found, "converting", lambda: library.convert(net, x))
    reference = build(network)[0]
    found["caller's network"] = same_network(net, reference)
    if model is None:
        return found
    found["kept"], found["tensors"] = kept_weights(reference, model)
    attempt(found, "predicting", lambda: predict(found, library, model, reference, x))
    attempt(found, "training", lambda: train(found, library, model, reference, x))
    if "errors" in found or not found["members in the output"]:
        return found
    attempt(found, "comparing", lambda: compare(found, library, network))
    attempt(found, "taking a member out", lambda: take_out(found, library, network))
    attempt(found, "timing", lambda: time_step(found, library, network))
    return found


def attempt(found: dict[str, Any], doing: str, function: Callable[[], Any]) -> Any:
    """Return what ``function`` returns, or note what it raised and return ``None``."""
    try:
        return function()
    except Exception as error:
        first_line = (str(error).splitlines() or [""])[0]
        found.setdefault("errors", {})[doing] = f"{type(error).__name__}: {first_line}"
        return None


def same_network(net: nn.Module, reference: nn.Module) -> bool:
    """Tell whether modules and tensors are what they were."""
    ours, theirs = net.state_dict(), reference.state_dict()
    return (
        [(name, type(module)) for name, module in net.named_modules()]
        == [(name, type(module)) for name, module in reference.named_modules()]
        and ours.keys() == theirs.keys()
        and all(torch.equal(ours[name], theirs[name]) for name in ours)
    )


@torch.no_grad()
def predict(
    found: dict[str, Any], library: type[Library], model: nn.Module, net: nn.Module, x: Tensor
) -> None:
    """Run a batch in evaluation mode and look whose outputs are in the answer."""
    y = library.run(model.eval(), x)
    found["shape"] = list(y.shape)
    expected = net(x).shape
    try:
        members = library.by_member(y)
    except RuntimeError:  # the axis of the rows does not divide by the members
        members = y
    found["members in the output"] = members.shape == (expected[0], MEMBERS, *expected[1:])
    if found["members in the output"]:
        others = (members[:, 1:] - members[:, :1]).flatten(2).abs().amax((0, 2))
        found["members differ"] = bool((others > 1e-6).all())
        found["members mix"] = members_mix(library, model, net, x)


@torch.no_grad()
def members_mix(library: type[Library], model: nn.Module, net: nn.Module, x: Tensor) -> bool:
    """Bend the first member at random and tell whether another one's output changes."""
    state = copy.deepcopy(model.state_dict())
    answers = []
    for bend in (0.0, 0.5):
        for value in own_tensors(library, model, net.state_dict()).values():
            of_member(value, 0).add_(bend * torch.randn_like(of_member(value, 0)))
        torch.manual_seed(2)  # the same dropout both times
        answers.append(library.by_member(library.run(model, x)))
    model.load_state_dict(state)
    return bool((answers[1] - answers[0])[:, 1:].abs().max() > 1e-6)


def train(
    found: dict[str, Any], library: type[Library], model: nn.Module, net: nn.Module, x: Tensor
) -> None:
    """Run backward in training mode and count the layers that every member bends."""
    library.run(model.train(), x).square().mean().backward()
    if found.get("members in the output"):
        found["members mix in training"] = members_mix(library, model, net, x)
    model.zero_grad()
    y = library.run(model.eval(), x)
    (y * torch.randn_like(y)).sum().backward()
    layers = weighty_layers(net)
    bent = set()
    for name, value in own_tensors(library, model, net.state_dict()).items():
        layer = owner(name, layers)
        if layer is None or "bias" in name or value.grad is None:
            continue
        if all(of_member(value.grad, index).abs().sum() > 0 for index in range(MEMBERS)):
            bent.add(layer)
    found["layers bent"] = len(bent)
    found["layers not bent"] = sorted(set(layers) - bent)


@torch.no_grad()
def compare(found: dict[str, Any], library: type[Library], network: str) -> None:
    """With all fast weights 1, compare each member with the network it came from."""
    reference, x = build(network)
    expected = reference(x).unsqueeze(1)
    for key, by_hand in (("ones", False), ("ones, copied by hand", True)):
        model = library.alike(*build(network), by_hand=by_hand).eval()
        y = library.by_member(library.run(model, x))
        found[key] = (y - expected).abs().max().item()


@torch.no_grad()
def take_out(found: dict[str, Any], library: type[Library], network: str) -> None:
    """Take a member out and compare it with its part of the ensemble's answer."""
    net, x = build(network)
    model = library.convert(net, x).eval()
    member = library.member(model, 2)
    found["member"] = None
    if member is not None:
        plain = {type(module) for module in build(network)[0].modules()}
        found["member"] = {type(module) for module in member.modules()} <= plain
        y = library.by_member(library.run(model, x))[:, 2]
        found["member's difference"] = (member(x) - y).abs().max().item()


def time_step(found: dict[str, Any], library: type[Library], network: str) -> None:
    """Time a training step over that of the plain network on as many rows."""
    net, x = build(network, TIMED_BATCH)
    model = library.convert(net, x).train()
    plain, rows = build(network, TIMED_BATCH * MEMBERS)
    plain.train()
    sides = ((model, lambda: library.run(model, x)), (plain, lambda: plain(rows)))
    optimizers = [torch.optim.SGD(module.parameters(), lr=1e-4) for module, _ in sides]
    ratios: list[float] = []
    begin = time.perf_counter()
    while len(ratios) < REPETITIONS + 2 or time.perf_counter() < begin + SECONDS:
        seconds = []
        for (_, run), optimizer in zip(sides, optimizers, strict=True):
            start = time.perf_counter()
            optimizer.zero_grad()
            run().square().mean().backward()
            optimizer.step()
            seconds.append(time.perf_counter() - start)
        ratios.append(seconds[0] / seconds[1])
    found["step over plain"] = statistics.median(ratios[2:])  # the first ones fill caches


def main() -> None:
    """Print what was found of the pair that the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("library", choices=LIBRARIES)
    parser.add_argument("network", choices=NETWORKS)
    arguments = parser.parse_args()
    print(json.dumps(measure(LIBRARIES[arguments.library], arguments.network)))


if __name__ == "__main__":
    main()
