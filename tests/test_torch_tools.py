"""Ensembles go through the rest of PyTorch as any module does."""

import copy
import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils.checkpoint import checkpoint

import batchensemble as be
from torch_networks import MODES, NETWORKS, Attentive, Convolutional, loss

MEMBERS = 3


@pytest.fixture(params=NETWORKS)
def case(request):
    torch.manual_seed(0)
    make, inputs = NETWORKS[request.param]
    return make(), inputs


@pytest.fixture(params=MODES)
def model(request, case):
    return be.BatchEnsemble(case[0], MEMBERS, **MODES[request.param])


@pytest.fixture
def x(case):
    return case[1](4)


def gradients(model):
    return {
        name: parameter.grad.clone()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }


@pytest.fixture(scope="module")
def compiled():
    """What the compiler and the exporter said, by network, mode and what was tried."""
    script = Path(__file__).parent / "support" / "compiling.py"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", script], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("what", ["compile_for_prediction", "compile_for_training"])
def test_a_deep_ensemble_under_vmap_compiles(compiled, what):
    error = compiled[f"deep ensemble, {what}"]
    assert not error, error


@pytest.mark.parametrize("what", ["compile_for_prediction", "compile_for_training", "export"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("network", NETWORKS)
def test_it_becomes_one_graph(compiled, network, mode, what):
    assert compiled[f"{network}, {mode}, {what}"] == ""


def test_it_is_called_with_other_weights(model, x):
    model.eval()
    weights = {name: value + 0.01 for name, value in model.state_dict().items() if value.dim()}
    called = torch.func.functional_call(model, weights, (x,))
    model.load_state_dict(weights, strict=False)
    torch.testing.assert_close(called, model(x))


@pytest.mark.parametrize("mode", ["activation", "weight", "additive"])
def test_gradients_of_each_example_come_from_one_vmap(mode):
    options = {"mode": mode} if mode == "additive" else {"space": mode}
    net = nn.Sequential(nn.Conv1d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2))
    model = be.BatchEnsemble(net, MEMBERS, **options).double()
    parameters = dict(model.named_parameters())
    x = torch.randn(5, 2, 6, dtype=torch.float64)

    def of_one(parameters, example):
        outputs = torch.func.functional_call(model, parameters, (example.unsqueeze(0),))
        return outputs.square().sum()

    at_once = torch.func.vmap(torch.func.grad(of_one), in_dims=(None, 0))(parameters, x)
    for index, example in enumerate(x):
        model.zero_grad()
        model(example.unsqueeze(0)).square().sum().backward()
        for name, parameter in parameters.items():
            torch.testing.assert_close(at_once[name][index], parameter.grad)


def test_a_deep_copy_is_another_ensemble(model, x):
    model.eval()
    twin, before = copy.deepcopy(model), model(x)
    assert torch.equal(twin(x), before)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert torch.equal(model(x), before)
    torch.testing.assert_close(model.member(1)(x), before[:, 1])


def test_it_is_saved_whole(model, x, tmp_path):
    model.eval()
    torch.save(model, tmp_path / "model.pt")
    loaded = torch.load(tmp_path / "model.pt", weights_only=False)
    assert torch.equal(loaded(x), model(x))
    torch.testing.assert_close(loaded.member(2)(x), model(x)[:, 2])


def test_it_moves_to_another_type(model, x):
    model.double().eval()
    inputs = x.double() if x.is_floating_point() else x
    outputs = model(inputs)
    assert outputs.dtype == torch.float64
    torch.testing.assert_close(model.member(1)(inputs), outputs[:, 1])
    assert {p.dtype for p in model.member(1).parameters()} == {torch.float64}
    model.to(torch.bfloat16)
    inputs = inputs.bfloat16() if inputs.is_floating_point() else inputs
    assert model(inputs).dtype == torch.bfloat16


def test_autocast_computes_in_lower_precision_as_the_network_does(model, case, x):
    with torch.autocast("cpu", torch.bfloat16):
        expected, outputs = case[0](x), model(x)
    assert outputs.dtype == expected.dtype
    loss(outputs).backward()
    assert {gradient.dtype for gradient in gradients(model).values()} == {torch.float32}
    full = copy.deepcopy(model)
    full.zero_grad()
    torch.testing.assert_close(outputs.float(), full(x), rtol=0.1, atol=0.1)


def test_activations_can_be_recomputed(model, x):
    twin = copy.deepcopy(model)
    loss(model(x)).backward()
    loss(checkpoint(twin, x, use_reentrant=False)).backward()
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradients(twin)[name], gradient, msg=name)


def test_a_part_of_the_network_can_be_recomputed():
    class Recomputing(Convolutional):
        def forward(self, x):
            hidden = self.stem(x)
            block = checkpoint(self.block, hidden, use_reentrant=False)
            return self.head((hidden + block).mean((2, 3)))

    torch.manual_seed(0)
    model = be.BatchEnsemble(Recomputing(), MEMBERS, init="normal")
    plain = copy.deepcopy(model)
    plain.network.__class__ = Convolutional
    x = torch.randn(4, 3, 6, 6)
    for each in (model, plain):
        loss(each(x)).backward()
    for name, gradient in gradients(plain).items():
        torch.testing.assert_close(gradients(model)[name], gradient, msg=name)


@pytest.fixture
def one_process():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("one_process")
def test_it_trains_in_data_parallel_processes(model, x):
    twin = copy.deepcopy(model)
    parallel = DistributedDataParallel(twin)
    loss(model(x)).backward()
    loss(parallel(x)).backward()
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradients(twin)[name], gradient, msg=name)


def test_threads_of_one_process_are_refused(model):
    with pytest.raises(RuntimeError, match=r"use torch\.nn\.parallel\.DistributedDataParallel"):
        model._replicate_for_data_parallel()  # what nn.DataParallel calls on several devices


def test_weights_on_several_devices_stay_where_they_are():
    network = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2, device="meta"))
    model = be.BatchEnsemble(network, MEMBERS)
    for name, parameter in model.named_parameters():
        assert parameter.device.type == ("meta" if name.startswith("network.1") else "cpu"), name
    assert model.member(0)[1].weight.device.type == "meta"


class TestFastPathOfTorchsEncoders:
    """In evaluation torch's encoders may read the weights of their layers themselves."""

    @pytest.fixture
    def encoder(self):
        torch.manual_seed(0)
        return Attentive().eval()

    @pytest.mark.parametrize(
        "options", [{}, {"exclude": [nn.MultiheadAttention]}, {"independent": ["encoder"]}]
    )
    @pytest.mark.filterwarnings("ignore:.*nested tensors.*:UserWarning")
    def test_members_still_agree(self, encoder, options):
        model = be.BatchEnsemble(encoder, MEMBERS, **options).eval()
        x = torch.randint(11, (4, 7))
        with torch.no_grad():
            outputs = model(x)
            for index in range(MEMBERS):
                torch.testing.assert_close(model.member(index)(x), outputs[:, index])

    def test_a_member_has_it_back(self, encoder):
        member = be.BatchEnsemble(encoder, MEMBERS).member(0)
        layers = zip(member.encoder.layers, encoder.encoder.layers, strict=True)
        for layer, original in layers:
            assert layer.activation_relu_or_gelu == original.activation_relu_or_gelu == 1

    @pytest.mark.filterwarnings("ignore:.*nested tensors.*:UserWarning")
    def test_padding_is_left_out(self):
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        encoder = nn.TransformerEncoder(layer, 2).eval()
        model = be.BatchEnsemble(encoder, MEMBERS, init="ones")
        x, padding = torch.randn(4, 7, 8), torch.arange(7) >= torch.tensor([[7], [3], [5], [1]])
        with torch.no_grad():
            outputs = model(x, src_key_padding_mask=padding)
            expected = encoder(x, src_key_padding_mask=padding)
            alone = model.member(1)(x, src_key_padding_mask=padding)
        torch.testing.assert_close(outputs[:, 1], alone)
        torch.testing.assert_close(outputs[:, 1][~padding], expected[~padding])


class TestDevices:
    """On torch's ``meta`` device, and beside a default device that is not the network's."""

    @pytest.fixture(params=["BatchEnsemble", "DeepEnsemble", "MIMO", "branched", "vmapped"])
    def make(self, request):
        return {
            "BatchEnsemble": lambda network: be.BatchEnsemble(network, members=3),
            "DeepEnsemble": lambda network: be.DeepEnsemble(network, members=3),
            "MIMO": lambda network: be.MIMO(network, members=3),
            "branched": lambda network: be.BatchEnsemble(network, members=3, branch_at="2"),
            "vmapped": lambda network: be.DeepEnsemble(network, members=3, stacked=True),
        }[request.param]

    def test_a_network_is_built_and_trained_on_meta(self, make):
        with torch.device("meta"):
            model = make(nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 3)))
            x = torch.zeros(5, 2)
        outputs = model(x)
        outputs.sum().backward()
        assert outputs.is_meta
        assert outputs.shape == (5, 3, 3)
        assert all(parameter.grad.is_meta for parameter in model.parameters())
        assert next(model.member(1).parameters()).is_meta
        assert model.freeze()(x).shape == (5, 3, 3)

    def test_weights_come_later(self, make):
        network = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 3))
        whole, x = make(network), torch.randn(5, 2)
        empty = make(network.to("meta")).to_empty(device="cpu")
        empty.load_state_dict(whole.state_dict())
        assert torch.equal(empty(x), whole(x))

    @pytest.mark.parametrize(
        "ask",
        [
            lambda model: be.fit(model, (torch.zeros(4, 2), torch.tensor([0, 1, 2, 0]))),
            lambda model: be.predict(model, torch.zeros(4, 2)),
            lambda model: model.verify(torch.zeros(4, 2, device="meta")),
            lambda model: be.save(model, "nowhere"),
        ],
        ids=["fit", "predict", "verify", "save"],
    )
    def test_what_reads_numbers_is_refused_on_meta(self, ask):
        model = be.BatchEnsemble(nn.Linear(2, 3), members=3).to("meta")
        with pytest.raises(ValueError, match=r"on torch's meta device, .*to_empty"):
            ask(model)

    def test_no_tensor_is_made_on_the_default_device(self, make):
        network = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 3))
        x = torch.randn(5, 2)
        with torch.device("meta"):
            model = make(network)
            outputs = model(x)
            outputs.sum().backward()
            with torch.no_grad():
                model.freeze()(x[:1])
        assert not any(each.is_meta for each in (outputs, *model.parameters()))

    def test_packed_sequences_stay_on_theirs(self):
        class Last(nn.Module):
            def __init__(self):
                super().__init__()
                self.lstm = nn.LSTM(3, 4)

            def forward(self, packed):
                return self.lstm(packed)[1][0][-1]

        model = be.BatchEnsemble(Last(), members=3)
        packed = pack_padded_sequence(torch.randn(5, 2, 3), torch.tensor([5, 4]))
        with torch.device("meta"):
            outputs = model(packed)
        assert torch.equal(outputs, model(packed))
