"""The network: shapes and strides, and that every weight learns."""

from itertools import pairwise

import pytest
import torch

from skad.network import model as _networks
from skad.network.model import FEATURE_STRIDES, MAP_STRIDE, STRIDE
from skad.network.training import step


def network(n_channels=1):
    return _networks.new_network(n_channels, torch.Generator().manual_seed(0)).eval()


def images(n=2, n_channels=1, size=(32, 48), seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, n_channels, *size, generator=generator)


@pytest.mark.parametrize("size", [(16, 16), (16, 160), (48, 32), (96, 96)])
@pytest.mark.parametrize("n_channels", [1, 3, 6])
def test_shapes(size, n_channels):
    x = images(2, n_channels, size)
    reconstruction, logits, features = network(n_channels)(x)
    height, width = size
    assert reconstruction.shape == x.shape
    assert logits.shape == (2, height // MAP_STRIDE, width // MAP_STRIDE)
    for level, stride in zip(features, FEATURE_STRIDES, strict=True):
        assert len(level) == 2
        assert level.shape[2:] == (height // stride, width // stride)


def test_strides_divide_each_other():
    assert all(b % a == 0 for a, b in pairwise(FEATURE_STRIDES))
    assert STRIDE % MAP_STRIDE == 0
    assert STRIDE == FEATURE_STRIDES[-1]


def outputs(x):
    """Everything that the network gives, in one list."""
    reconstruction, logits, features = network()(x)
    return [reconstruction, logits, *features]


def test_images_of_a_batch_do_not_see_each_other():
    x = images(3)
    together = outputs(x)
    alone = outputs(x[1:2])
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a[1:2], b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("output", range(2 + len(FEATURE_STRIDES)))
def test_outputs_lie_where_the_image_changed(output):
    """A pixel's change moves the outputs around it most, so strides are true."""
    size, row, col = 256, 150, 70
    x = images(1, size=(size, size))
    changed = x.clone()
    changed[:, :, row, col] += 5.0
    before, after = (outputs(v)[output].double() for v in (x, changed))
    moved = (after - before).abs().reshape(1, -1, *before.shape[-2:]).sum((0, 1))
    stride = size // moved.shape[0]
    index = int(moved.argmax())
    found = divmod(index, moved.shape[1])
    assert abs(found[0] * stride - row) <= 2 * STRIDE
    assert abs(found[1] * stride - col) <= 2 * STRIDE
    assert moved[-1, -1] == 0  # far away nothing changes: fully convolutional


def test_every_parameter_learns_from_a_step():
    net = network(3).train()
    good = images(4, 3)
    visibility = torch.zeros(4, 1, 32, 48)
    visibility[:, :, 8:16, 8:16] = 1.0
    step(net, good, good + visibility, visibility)["loss"].backward()
    idle = [
        name
        for name, parameter in net.named_parameters()
        if parameter.grad is None or not parameter.grad.any()
    ]
    assert not idle


def test_the_anomaly_loss_does_not_spoil_the_reconstruction():
    net = network().train()
    good = images(4)
    step(net, good, good, torch.zeros(4, 1, 32, 48))["anomaly_loss"].backward()
    assert net.to_image[0].weight.grad is None


def test_a_new_network_sees_few_anomalies():
    logits = network()(images())[1]
    assert logits.sigmoid().mean() < 0.2


@pytest.mark.parametrize("n_channels", [1, 3])
def test_weights_are_torchs_own_from_another_generator(n_channels):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        expected = _networks.PatchAutoencoder(n_channels).state_dict()
        torch.manual_seed(6)
        before = torch.get_rng_state()
        generator = torch.Generator().manual_seed(5)
        found = _networks.new_network(n_channels, generator).state_dict()
        assert torch.equal(torch.get_rng_state(), before)
    for name in expected.keys() - {"to_logit.0.bias"}:
        assert torch.equal(found[name], expected[name]), name
    assert (found["to_logit.0.bias"] < 0).all()
