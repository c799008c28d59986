"""The folded network computes what the trained one computes, in less arithmetic."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from skad.network.folding import fold
from skad.network.model import new_network


def images(n, n_channels, size):
    return torch.randn(n, n_channels, *size, generator=torch.Generator().manual_seed(n))


def trained(n_channels=1):
    """A network whose normalisation shifts and scales."""
    generator = torch.Generator().manual_seed(0)
    network = new_network(n_channels, generator).train()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.uniform_(-0.5, 0.5, generator=generator)
        for _ in range(20):
            network(3 * images(4, n_channels, (64, 64)) + 1)
    return network.eval()


def flops(network, x):
    with FlopCounterMode(display=False) as counter:
        network(x)
    return counter.get_total_flops()


@pytest.mark.parametrize("size", [(16, 16), (80, 48)])
@pytest.mark.parametrize("n_channels", [1, 3])
def test_the_same_is_computed_in_less_arithmetic(size, n_channels):
    network, x = trained(n_channels), images(2, n_channels, size)
    folded = fold(network)
    with torch.no_grad():
        (image, logits, features), (image2, logits2, features2) = network(x), folded(x)
    pairs = zip((image, logits, *features), (image2, logits2, *features2), strict=True)
    for expected, found in pairs:
        assert expected.std() > 0.01
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    large = images(1, n_channels, (128, 128))
    assert flops(folded, large) < 0.85 * flops(network, large)


def test_the_trained_network_stays_as_it_is():
    network = trained().train()
    before = copy.deepcopy(network.state_dict())
    folded = fold(network)
    assert network.training and not folded.training
    assert not any(parameter.requires_grad for parameter in folded.parameters())
    assert all(parameter.requires_grad for parameter in network.parameters())
    after = network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
