"""The optimizer moves every weight, the kernels by equal singular values."""

import pytest
import torch
from torch.optim.lr_scheduler import OneCycleLR

from skad.network import model as _networks
from skad.network.optimizer import Optimizer


@pytest.fixture(params=[1, 3])
def network(request):
    generator = torch.Generator().manual_seed(0)
    return _networks.new_network(request.param, generator).train()


def move(network, *, n_steps=1, learning_rate=0.01):
    """Take steps on noise; return how far each weight went."""
    n_channels = network.down2[0][0].in_channels
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(4, n_channels, 32, 32, generator=generator)
    before = {k: p.detach().clone() for k, p in network.named_parameters()}
    optimizer = Optimizer(network, learning_rate, 20)
    for _ in range(n_steps):
        reconstruction, logits, _ = network(images)
        optimizer.step((reconstruction - images).square().mean() + logits.mean())
    return {k: p.detach() - before[k] for k, p in network.named_parameters()}


def test_every_weight_moves_and_stays_finite(network):
    went = move(network, n_steps=5)
    for name, way in went.items():
        assert way.isfinite().all(), name
        assert way.any(), name


def test_steps_of_kernels_have_about_equal_singular_values(network):
    went = move(network)
    kernels = [way for way in went.values() if way.ndim == 4 and len(way) > 4]
    for way in kernels:
        values = torch.linalg.svdvals(way.flatten(1))
        assert values[0] < 1.3 * values[3], way.shape
    gradient = network.mark4[2][0].weight.grad.flatten(1)
    values = torch.linalg.svdvals(gradient)  # in which they differ
    assert values[0] > 2 * values[3]


def test_steps_are_as_long_as_those_of_adamw(network):
    went = move(network)
    first = 0.01 / 25  # the schedule begins at a 25th of the peak
    for way in went.values():
        if way.ndim == 4:
            assert 0.05 * first < way.square().mean().sqrt() < 0.5 * first


def test_kernels_stay_where_they_are_in_memory(network):
    places = [p.data_ptr() for p in network.parameters()]
    move(network)
    assert [p.data_ptr() for p in network.parameters()] == places
    assert all(
        p.is_contiguous(memory_format=torch.channels_last)
        for p in network.parameters()
        if p.ndim == 4
    )


def test_every_number_of_steps_has_a_schedule():
    """The plain one-cycle schedule; it fails for nine steps, which have one like it."""
    for n_steps in range(1, 41):
        network = torch.nn.Conv2d(1, 4, 3).to(memory_format=torch.channels_last)
        optimizer = Optimizer(network, 0.01, n_steps)
        share = 0.1 if n_steps != 9 else 0.1 - 1e-6
        plain = OneCycleLR(
            torch.optim.SGD([torch.zeros(1)]),
            0.01,
            total_steps=n_steps + 1,
            pct_start=share,
            cycle_momentum=False,
        )
        plain.optimizer.step()
        for _ in range(n_steps):
            (wanted,) = plain.get_last_lr()
            if n_steps == 9:
                wanted = pytest.approx(wanted, abs=1e-5)
            assert optimizer._muon.param_groups[0]["lr"] == wanted, n_steps
            optimizer.step(network(torch.ones(2, 1, 5, 5)).square().mean())
            plain.step()
        assert all(p.isfinite().all() for p in network.parameters())
