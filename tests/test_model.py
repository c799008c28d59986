"""The network: shapes and strides, that every weight learns, and the folded one."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from skad.network import model as _model
from skad.network.model import FEATURE_STRIDES, MAP_STRIDE, STRIDE, fold
from skad.network.training import compute_losses


def network(n_channels=1):
    return _model.new_network(n_channels, torch.Generator().manual_seed(0)).eval()


def images(n=2, n_channels=1, size=(32, 48)):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, n_channels, *size, generator=generator)


def outputs(x, net=None):
    """Everything that the network returns, in one list."""
    reconstruction, logits, features = (net or network())(x)
    return [reconstruction, logits, *features]


@pytest.mark.parametrize(
    ("size", "n_channels"), [((16, 16), 1), ((48, 32), 3), ((16, 160), 6)]
)
def test_shapes(size, n_channels):
    x = images(2, n_channels, size)
    reconstruction, logits, features = network(n_channels)(x)
    height, width = size
    assert reconstruction.shape == x.shape
    assert logits.shape == (2, height // MAP_STRIDE, width // MAP_STRIDE)
    for level, stride in zip(features, FEATURE_STRIDES, strict=True):
        assert len(level) == 2
        assert level.shape[2:] == (height // stride, width // stride)


def test_outputs_change_where_the_image_changed():
    """A pixel's change moves the outputs around it most, so strides are true."""
    size, row, col = 256, 150, 70
    x = images(1, size=(size, size))
    changed = x.clone()
    changed[:, :, row, col] += 5.0
    for before, after in zip(outputs(x), outputs(changed), strict=True):
        moved = (after - before).double().abs()
        moved = moved.reshape(-1, *moved.shape[-2:]).sum(0)
        stride = size // moved.shape[0]
        found = divmod(int(moved.argmax()), moved.shape[1])
        assert abs(found[0] * stride - row) <= 2 * STRIDE
        assert abs(found[1] * stride - col) <= 2 * STRIDE
        assert moved[-1, -1] == 0  # nothing changes far away: fully convolutional


def test_every_parameter_learns_from_a_step():
    net = network(3).train()
    good = images(4, 3)
    visibility = torch.zeros(4, 1, 32, 48)
    visibility[:, :, 8:16, 8:16] = 1.0
    compute_losses(net, good, good + visibility, visibility)["loss"].backward()
    assert all(p.grad is not None and p.grad.any() for p in net.parameters())


def test_the_anomaly_loss_does_not_spoil_the_reconstruction():
    net, good = network().train(), images(4)
    losses = compute_losses(net, good, good, torch.zeros(4, 1, 32, 48))
    losses["anomaly_loss"].backward()
    assert net.to_image[0].weight.grad is None


# --- Folded for scoring ------------------------------------------------------------


def trained(n_channels=1):
    """A network whose normalisation shifts and scales."""
    generator = torch.Generator().manual_seed(0)
    net = network(n_channels).train()
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.uniform_(-0.5, 0.5, generator=generator)
        for _ in range(20):
            net(3 * images(4, n_channels, (64, 64)) + 1)
    return net.eval()


def flops(network, x):
    with FlopCounterMode(display=False) as counter:
        network(x)
    return counter.get_total_flops()


@pytest.mark.parametrize(("size", "n_channels"), [((16, 16), 1), ((80, 48), 3)])
def test_folded_the_same_is_computed_in_less_arithmetic(size, n_channels):
    net, x = trained(n_channels), images(2, n_channels, size)
    before = copy.deepcopy(net.state_dict())
    folded = fold(net.train())
    assert net.training and not folded.training  # and the network stays as it is
    assert all(
        torch.equal(before[name], value) for name, value in net.state_dict().items()
    )
    net.eval()
    with torch.no_grad():
        pairs = zip(outputs(x, net), outputs(x, folded), strict=True)
    for expected, found in pairs:
        assert expected.std() > 0.01
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    large = images(1, n_channels, (128, 128))
    assert flops(folded, large) < 0.85 * flops(net, large)
