"""One tester for every network of the family; sizes, and bodies handed in."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from messages import raises
from torch import nn

from bloodseg.networks import (
    NETWORKS,
    POSITIONS,
    NODEsUNet,
    ResNetUNet,
    UNet,
    copy_with_shared_weights,
    for_prediction,
    make_network,
    make_plain_body,
)
from bloodseg.networks._blocks import ConvNormReLU, SameConv2x2
from bloodseg.networks._feedback import ConvLSTM
from bloodseg.ode import ODEBlock
from bloodseg.ode.methods import TABLEAUS


def n_weights(network):
    return sum(weight.numel() for weight in network.parameters())


def images(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


class NetworkTester:
    """What holds for every network of the family; a subclass says which one in ``make``."""

    name: str
    settings: dict = {}  # noqa: RUF012

    def make(self, **parameters):
        torch.manual_seed(0)
        return make_network(self.name, **{"width": 4, **self.settings, **parameters})

    @pytest.fixture
    def network(self):
        return self.make()

    @pytest.fixture
    def trained(self, network):
        """A network whose statistics have seen something, in evaluation mode."""
        network(images(2, 3, 32, 32))
        return network.eval()

    def test_every_weight_gets_a_finite_gradient(self, network):
        network = self.make(dropout=0.0)
        logits = network(images(2, 3, 48, 32))
        (logits * images(*logits.shape)).sum().backward()
        for name, weight in network.named_parameters():
            assert weight.grad is not None, name
            assert torch.isfinite(weight.grad).all(), name
            assert weight.grad.abs().max() > 0, name

    @pytest.mark.parametrize("size", [(1, 1), (17, 33), (50, 70), (16, 16), (2, 31)])
    def test_images_of_any_size(self, trained, size):
        with torch.no_grad():
            logits = trained(images(2, 3, *size))
        assert logits.shape == (2, 3, *size)
        assert logits.dtype == torch.float32
        assert torch.isfinite(logits).all()

    @pytest.mark.parametrize(("n_classes", "in_channels"), [(2, 1), (5, 4)])
    def test_classes_and_channels(self, n_classes, in_channels):
        network = self.make(n_classes=n_classes, in_channels=in_channels).eval()
        assert network(images(1, in_channels, 32, 32)).shape == (1, n_classes, 32, 32)

    def test_save_and_load(self, trained, tmp_path):
        torch.save(trained.state_dict(), tmp_path / "weights.pt")
        other = self.make()
        with torch.no_grad():
            other.head.bias += 1
        other.eval().load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
        x = images(1, 3, 32, 32)
        assert torch.equal(other(x), trained(x))

    def test_evaluation_is_deterministic_and_changes_nothing(self, trained):
        before = copy.deepcopy(trained.state_dict())
        x = images(2, 3, 17, 33)
        given = x.clone()
        assert torch.equal(trained(x), trained(x))
        assert torch.equal(x, given)
        assert all(torch.equal(before[name], now) for name, now in trained.state_dict().items())

    def test_training_mode_drops_out_and_gathers_statistics(self):
        network = self.make(dropout=0.5)
        before = copy.deepcopy(network.state_dict())
        x = images(2, 3, 32, 32)
        given = x.clone()
        assert not torch.equal(network(x), network(x))
        assert torch.equal(x, given)
        changed = {
            name for name, now in network.state_dict().items() if not torch.equal(before[name], now)
        }
        assert changed
        assert all("running" in name or "num_batches" in name for name in changed)

    def test_a_batch_is_one_by_one(self, trained):
        x = images(3, 3, 32, 48)
        x[1] = 0
        together = trained(x)
        for each, logits in zip(x, together, strict=True):
            assert torch.allclose(trained(each[None])[0], logits, atol=1e-5)

    def test_only_sides_that_need_it_are_padded(self, trained):
        x = images(1, 3, 40, 48)  # padded below to 48, by mirroring
        mirrored = torch.cat([x, x[:, :, 32:].flip(2)], dim=2)
        assert mirrored.shape == (1, 3, 48, 48)
        with torch.no_grad():
            assert torch.equal(trained(x), trained(mirrored)[:, :, :40])

    def test_weights_scale_with_width(self):
        narrow, wide = n_weights(self.make(width=8)), n_weights(self.make(width=16))
        assert 3.8 < wide / narrow < 4

    @pytest.mark.parametrize(
        ("parameters", "text"),
        [
            ({"n_classes": 1}, "n_classes must be at least 2"),
            ({"width": 0}, "got n_classes=3, width=0, in_channels=3."),
            ({"in_channels": 0}, "width and in_channels at least 1"),
            ({"dropout": 1.0}, "dropout must lie in [0, 1); got 1.0."),
            ({"dropout": -0.1}, "dropout must lie in [0, 1); got -0.1."),
            ({"dropout": float("nan")}, "dropout must lie in [0, 1); got nan."),
            ({"precision": "half"}, "precision must be 'float32' or 'bfloat16'; got 'half'."),
        ],
    )
    def test_parameters_out_of_range(self, parameters, text):
        with raises(text):
            self.make(**parameters)

    def test_bfloat16_stays_close_and_gives_float32(self, trained):
        x = images(1, 3, 32, 32)
        with torch.no_grad():
            exact = trained(x)
            trained.precision = "bfloat16"
            lowered = trained(x)
        assert lowered.dtype == torch.float32
        assert not torch.equal(lowered, exact)
        assert (lowered - exact).abs().max() < 0.1 * exact.abs().max()
        assert {weight.dtype for weight in trained.parameters()} == {torch.float32}

    @pytest.mark.parametrize("precision", ["float32", "bfloat16"])
    def test_for_prediction_it_computes_the_same_with_less(self, trained, precision):
        trained.precision = precision
        before = {name: tensor.clone() for name, tensor in trained.state_dict().items()}
        folded, x = for_prediction(trained), images(2, 3, 40, 33)
        tolerance = 1e-4 if precision == "float32" else 0.05
        assert torch.allclose(folded(x), trained(x), atol=tolerance * trained(x).abs().max().item())
        assert folded(x).dtype == torch.float32
        assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
        after = trained.state_dict()
        assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())

    @pytest.mark.parametrize("functions_too", [False, True])
    def test_a_copy_that_shares_weights_is_a_network_of_its_own(self, trained, functions_too):
        twin, x = (
            copy_with_shared_weights(trained, functions_too=functions_too),
            images(1, 3, 32, 32),
        )
        places = [weight.data_ptr() for weight in trained.parameters()]
        assert [weight.data_ptr() for weight in twin.parameters()] == places
        assert torch.equal(twin(x), trained(x))
        before = copy.deepcopy(trained.state_dict())
        shared = {id(module) for module in trained.modules()} & {id(m) for m in twin.modules()}
        own = [module for module in twin.modules() if id(module) not in shared]
        assert not (functions_too and shared)
        for module in own:  # as a move to another device or precision, or adapting, changes it
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.add_(1)
            module._apply(torch.Tensor.double, recurse=False)
        after = trained.state_dict()
        assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
        assert {weight.dtype for weight in trained.parameters()} == {torch.float32}
        assert not any(module.training for module in trained.modules())

    def test_copies_are_independent(self, trained):
        x = images(1, 3, 32, 32)
        twin = copy.deepcopy(trained)
        assert torch.equal(twin(x), trained(x))
        with torch.no_grad():
            twin.head.bias += 1
        assert not torch.equal(twin(x), trained(x))


class TestUNet(NetworkTester):
    name = "unet"


class TestResNetUNet(NetworkTester):
    name = "resnet-unet"


class TestFCN(NetworkTester):
    name = "fcn"

    def test_a_scale_that_says_nothing_leaves_the_others(self, trained):
        x = images(1, 3, 32, 32)
        with torch.no_grad():
            whole = trained(x)
            for layer in (*trained.finer, trained.head):
                layer.weight.zero_()
                layer.bias.zero_()
                assert not torch.equal(trained(x), whole)
        assert (trained(x) == 0).all()


class TestDLinkNet(NetworkTester):
    name = "d-linknet"

    def test_the_centre_adds_what_each_dilation_sees(self, trained):
        centre = trained.stages[4][1][-1]
        maps = images(1, centre.layers[0][0].in_channels, 20, 20)
        expected, last = maps, maps
        for layer, dilation in zip(centre.layers, (1, 2, 4, 8), strict=True):
            assert layer[0].dilation == (dilation, dilation)
            last = layer(last)
            expected = expected + last
        assert torch.equal(centre(maps), expected)


class TestFeedbackUNet(NetworkTester):
    name = "feedback-unet"

    def test_to_begin_with_a_cell_keeps_most_of_what_it_has(self):
        cell = ConvLSTM(2)
        for weight in cell.parameters():
            nn.init.zeros_(weight)
        memory = torch.zeros(1, 2, 3, 3), torch.ones(1, 2, 3, 3)
        _, kept = cell(images(1, 2, 3, 3), memory)
        assert torch.allclose(kept, torch.sigmoid(torch.ones(1)))

    def test_the_second_round_sees_the_first_answer_and_its_memory(self, trained):
        x = images(1, 3, 32, 32)
        seen, memories = [], []
        trained.stages[0].register_forward_pre_hook(lambda module, given: seen.append(given[0]))
        trained.stages[4][1].register_forward_hook(
            lambda module, given, memory: memories.append((given[1], memory))
        )
        heads = []
        trained.head.register_forward_hook(lambda module, given, logits: heads.append(logits))
        answer = trained(x)
        first, second = seen
        assert torch.equal(first[:, :3], x)
        assert (first[:, 3:] == 0).all()
        assert torch.equal(second[:, :3], x)
        assert torch.equal(second[:, 3:], heads[0].softmax(dim=1))
        assert memories[0][0] is None
        assert memories[1][0] is memories[0][1]
        assert torch.equal(heads[1], answer)

    def test_a_prediction_remembers_no_other(self, trained):
        x, other = images(2, 1, 3, 32, 32)
        alone = trained(x)
        trained(other)
        assert torch.equal(trained(x), alone)


class TestNODEsUNet(NetworkTester):
    name = "nodes-unet"

    def test_blocks_say_what_they_cost(self, trained):
        trained(images(2, 3, 32, 32))
        assert list(trained.ode_blocks) == list(trained._ode_positions)
        for position, block in trained.ode_blocks.items():
            assert block.n_evaluations.shape == (2,)
            assert (block.n_evaluations >= 3).all()
            assert block.name == f"ODE-block at position {position}"

    def test_tolerances_reach_the_blocks(self, network):
        positions = network._ode_positions
        network.set_tolerances(1e-2, {position: 10.0**-position for position in positions})
        for position, block in network.ode_blocks.items():
            assert block.tol == 1e-2
            assert block.predict_tol == 10.0**-position
        network.set_tolerances("paper")
        for position, block in network.ode_blocks.items():
            assert block.tol == block.predict_tol == (1e-6 if position == 5 else 1e-4)

    def test_tolerances_stay_where_new_ones_are_wrong(self, network):
        network.set_tolerances(1e-2, 1e-1)
        for wrong in (-1, 1e-3), (1e-3, "tight"), (1e-3, -1):
            if network.ode_blocks:
                with pytest.raises(ValueError, match="ode_tol must be"):
                    network.set_tolerances(*wrong)
        for block in network.ode_blocks.values():
            assert (block.tol, block.predict_tol) == (1e-2, 1e-1)

    def test_settings_are_passed_on(self):
        network = self.make(ode_method="rk4", ode_n_steps=3, ode_gradient="direct", ode_tol=0.1)
        for block in network.ode_blocks.values():
            assert (block.method, block.n_steps) == ("rk4", 3)
            assert (block.gradient, block.tol) == ("direct", 0.1)

    def test_fixed_steps_are_taken_and_kept_for_prediction(self):
        network = self.make(ode_method="midpoint", ode_n_steps=3).eval()
        network.calibrate(images(1, 3, 32, 32))
        for twin in network, for_prediction(network):
            twin(images(1, 3, 32, 32))
            assert all(block.n_evaluations == 6 for block in twin.ode_blocks.values())

    def test_a_method_of_ones_own(self):
        mine = dataclasses.replace(TABLEAUS["bosh3"], name="mine")
        network, expected = (self.make(ode_method=method).eval() for method in (mine, "bosh3"))
        x = images(1, 3, 32, 32)
        assert torch.equal(network(x), expected(x))
        assert all(block.method_at(1e-3) == "mine" for block in network.ode_blocks.values())

    @pytest.mark.parametrize(
        ("parameters", "text"),
        [
            (
                {"ode_n_steps": 8},
                "ode_n_steps=8 is for fixed-step methods (euler, midpoint, rk4); 'auto' takes as "
                "many steps as its tolerance asks for. Leave ode_n_steps at None, or name one of "
                "those methods.",
            ),
            (
                {"ode_method": "rk4", "ode_n_steps": 0},
                "ode_n_steps must be a whole number of at least 1; got 0.",
            ),
            (
                {"ode_method": "rk5"},
                "method must be 'auto', one of heun, kutta3, bosh3, dopri5, tsit5, ",
            ),
        ],
    )
    def test_methods_and_steps_that_are_refused(self, parameters, text):
        with raises(text):
            self.make(**parameters)

    def test_right_hand_sides_are_evaluated_in_the_lower_precision(self, trained):
        seen = set()

        def watched(prepare):
            def note(dtype, tol):
                seen.add(dtype)
                return prepare(dtype, tol)

            return note

        for block in trained.ode_blocks.values():
            block.func.prepare = watched(block.func.prepare)
        trained.precision = "bfloat16"
        trained(images(1, 3, 32, 32))
        trained.set_tolerances(1e-3, 1e-5)
        assert seen == ({torch.bfloat16} if trained.ode_blocks else set())
        seen.clear()
        trained(images(1, 3, 32, 32))  # too tight for bfloat16
        assert seen == ({None} if trained.ode_blocks else set())

    def test_calibration_saves_evaluations_and_changes_no_more_than_the_tolerance(self, trained):
        for block in trained.ode_blocks.values():
            block.func.second.gain *= 100  # so that first attempts are rejected
        trained.set_tolerances(1e-3, 1e-1)
        x = images(2, 3, 48, 48)
        before, costs = self.at_training_tolerance(trained, x)
        weights = {name: tensor.clone() for name, tensor in trained.state_dict().items()}
        trained.calibrate(x)
        after, found = self.at_training_tolerance(trained, x)
        assert all(found[position] <= costs[position] for position in costs)
        if costs:
            assert sum(found.values()) < sum(costs.values())
        assert torch.allclose(after, before, atol=0.05 * before.abs().max().item())
        assert all(torch.equal(weights[name], t) for name, t in trained.state_dict().items())
        assert all(block.predict_tol == 1e-1 for block in trained.ode_blocks.values())
        twin = copy.deepcopy(trained)
        twin.set_first_steps(dict.fromkeys(POSITIONS))
        twin.set_first_steps(trained.first_steps)
        assert twin.first_steps == trained.first_steps

    def test_calibration_leaves_all_else_as_it_was(self):
        network = self.make(ode_tol=1e-2).train()
        network.stages[0].eval()  # as who freezes a part does
        modes = [module.training for module in network.modules()]
        network.calibrate(images(1, 3, 32, 32))
        assert [module.training for module in network.modules()] == modes
        for block in network.ode_blocks.values():
            block.tol = 1e-1
            assert block.predict_tol == 1e-1  # it still takes that of training

    def test_a_calibration_that_fails_leaves_no_trace(self):
        network = self.make(ode_tol=1e-2, predict_ode_tol=1e-1).train()
        steps = dict.fromkeys(network.ode_blocks, 0.5)
        network.set_first_steps(steps)

        def interrupt(*_):
            raise KeyboardInterrupt

        with network.head.register_forward_hook(interrupt), pytest.raises(KeyboardInterrupt):
            network.calibrate(images(1, 3, 32, 32))
        assert network.first_steps == steps
        assert all(module.training for module in network.modules())
        assert all(block.predict_tol == 1e-1 for block in network.ode_blocks.values())

    @staticmethod
    def at_training_tolerance(network, x):
        looser = {position: block.predict_tol for position, block in network.ode_blocks.items()}
        tight = {position: block.tol for position, block in network.ode_blocks.items()}
        network.set_tolerances(tight)
        logits = network(x)
        network.set_tolerances(tight, looser)
        return logits, {p: block.n_evaluations.mean() for p, block in network.ode_blocks.items()}


class TestNoODEBlock(TestNODEsUNet):
    settings = {"ode_positions": ()}  # noqa: RUF012

    def test_it_is_a_unet(self):
        network, unet = self.make().eval(), make_network("unet", width=4).eval()
        shapes = {name: tensor.shape for name, tensor in unet.state_dict().items()}
        assert {name: tensor.shape for name, tensor in network.state_dict().items()} == shapes
        network.load_state_dict(unet.state_dict())
        x = images(1, 3, 20, 40)
        assert torch.equal(network(x), unet(x))


class TestOneODEBlockAtTheTop(TestNODEsUNet):
    settings = {"ode_positions": [1]}  # noqa: RUF012


class TestODEBlocksEverywhere(TestNODEsUNet):
    settings = {"ode_positions": POSITIONS}  # noqa: RUF012


class TestODEBlocksInAnotherOrder(TestNODEsUNet):
    settings = {"ode_positions": np.array([6, 2])}  # noqa: RUF012

    def test_a_tuple_of_tolerances_goes_by_that_order(self, network):
        network.set_tolerances((1e-2, 1e-4))
        assert network.ode_blocks[6].tol == 1e-2
        assert network.ode_blocks[2].tol == 1e-4


# ---------------------------------------------------------------- the sizes in the paper


def test_numbers_of_weights():
    # 7.8, 11.3 and 27 million; the paper's "46 %" of the ResNet's is more than we need.
    counts = {name: n_weights(make_network(name)) for name in NETWORKS}
    millions = {name: round(count / 1e6, 1) for name, count in counts.items()}
    assert millions == {
        "nodes-unet": 11.3,
        "unet": 7.8,
        "resnet-unet": 27.3,
        "fcn": 4.7,
        "feedback-unet": 24.3,
        "d-linknet": 36.7,
    }
    assert counts["nodes-unet"] / counts["resnet-unet"] <= 0.46


def test_channels_double_to_the_bottom_and_halve_again():
    network = UNet()
    found = [stage[0][0].out_channels for stage in network.stages]
    assert found == [32, 64, 128, 256, 512, 256, 128, 64, 32]


@pytest.mark.parametrize("name", [n for n, made in NETWORKS.items() if issubclass(made, UNet)])
def test_the_maps_of_the_stages(name):
    network = make_network(name, width=2).eval()
    x = images(2, 3, 40, 50)
    with torch.inference_mode():
        maps = list(network.stage_maps(x))
        assert torch.equal(network.head(maps[-1])[..., :40, :50], network(x))
    depths = [0, 1, 2, 3, 4, 3, 2, 1, 0]
    assert [tuple(each.shape) for each in maps] == [
        (2, 2 * 2**depth, 48 // 2**depth, 64 // 2**depth) for depth in depths
    ]


@pytest.mark.parametrize("n", [1, 2])
def test_time_is_a_channel(n):
    # Against the plain way: t concatenated as a constant channel that does not end at the border.
    func = NODEsUNet(width=2, ode_positions=(3,)).ode_blocks[3].func
    with torch.no_grad():
        for weight in func.parameters():
            weight += 0.1 * torch.randn_like(weight)
    x, t = images(n, 8, 6, 5), torch.tensor([0.3, -1.7])[:n].reshape(n, 1, 1, 1)

    def plain(layer, x):
        filters = layer.direction / layer.direction.norm()
        of_time = layer.time.reshape(-1, 1, 1, 1).expand(-1, 1, 3, 3) / 9
        whole = torch.cat([nn.functional.pad(x, (1, 1, 1, 1)), t.expand(n, 1, 8, 7)], dim=1)
        filters = torch.cat([filters * layer.gain, of_time], dim=1)
        return nn.functional.conv2d(whole, filters, layer.bias)

    expected = plain(func.second, nn.functional.silu(plain(func.first, x)))
    assert torch.allclose(func(t, x), expected, atol=1e-5)


def test_an_even_kernel_pads_to_the_right_and_below():
    layer, x = SameConv2x2(4, 3), images(2, 4, 7, 9)
    padded = nn.functional.pad(x, (0, 1, 0, 1))
    plain = nn.functional.conv2d(padded, layer.weight, layer.bias)
    assert torch.allclose(layer(x), plain, atol=1e-6)


def test_residual_blocks_stand_where_the_paper_has_them():
    depths = {
        position: len(stage[1])
        for position, stage in zip(POSITIONS, ResNetUNet(width=1).stages, strict=True)
        if isinstance(stage[1], nn.Sequential) and hasattr(stage[1][0], "second")
    }
    assert depths == {2: 3, 3: 4, 4: 6, 5: 3}


def test_unknown_network():
    names = "nodes-unet, unet, resnet-unet, fcn, feedback-unet, d-linknet"
    with raises(f"network must be one of {names}; got 'vnet'."):
        make_network("vnet")


# ---------------------------------------------------------------- bodies handed in


def test_the_bodies_are_asked_for_once_a_stage_in_order():
    asked = []

    def body(position, channels):
        asked.append((position, channels))
        return make_plain_body(position, channels)

    torch.manual_seed(0)
    network = UNet(width=4, body=body)
    assert asked == list(zip(POSITIONS, [4, 8, 16, 32, 64, 32, 16, 8, 4], strict=True))
    torch.manual_seed(0)
    expected = UNet(width=4).state_dict()
    assert list(network.state_dict()) == list(expected)
    assert all(torch.equal(expected[name], new) for name, new in network.state_dict().items())


def test_a_subclass_sets_its_state_where_it_likes():
    class Scaled(UNet):
        def __init__(self, scale, **frame):
            super().__init__(body=self.make_body, **frame)
            self.scale = nn.Parameter(torch.tensor(scale))

        @staticmethod
        def make_body(position, channels):
            return nn.Identity() if position == 5 else make_plain_body(position, channels)

    network = Scaled(2.0, width=4).eval()
    assert isinstance(network.stages[4][1], nn.Identity)
    assert for_prediction(copy.deepcopy(network)).scale == 2
    assert network(images(1, 3, 20, 30)).shape == (1, 3, 20, 30)


@pytest.mark.parametrize("made", [None, torch.relu, nn.Identity])
def test_bodies_that_are_no_modules_are_refused(made):
    with raises(f"body must return a torch.nn.Module for each position; got {made!r} for 5."):
        UNet(width=4, body=lambda p, c: made if p == 5 else make_plain_body(p, c))


class OwnSlope(nn.Module):
    """A right-hand side of ordinary layers."""

    def __init__(self, channels):
        super().__init__()
        self.layer = ConvNormReLU(channels, channels)

    def forward(self, t, h):
        return self.layer(h) - h


@pytest.mark.parametrize("tol", [1e-2, 1e-5])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_an_ode_block_in_a_body_is_left_as_it_is_for_prediction(tol, precision):
    def body(position, channels):
        if position != 4:
            return make_plain_body(position, channels)
        return ODEBlock(OwnSlope(channels), tol=tol)

    torch.manual_seed(0)
    network = UNet(width=4, body=body, precision=precision).eval()
    x, before = images(1, 3, 32, 32), copy.deepcopy(network.state_dict())
    folded = for_prediction(network)
    close = 1e-4 if precision == "float32" else 0.05
    assert torch.allclose(folded(x), network(x), atol=close * network(x).abs().max().item())
    after = network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert {weight.dtype for weight in network.parameters()} == {torch.float32}
