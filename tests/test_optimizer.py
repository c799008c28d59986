"""The optimizer: steps of kernels have about equal singular values."""

import pytest
import torch

from skad.network import model as _model
from skad.network.optimizer import Optimizer


@pytest.fixture
def network():
    return _model.new_network(3, torch.Generator().manual_seed(0)).train()


def move(network, *, n_steps=1, learning_rate=0.01):
    """Take steps on noise; return how far each weight went."""
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    before = {k: p.detach().clone() for k, p in network.named_parameters()}
    optimizer = Optimizer(network, learning_rate, 20)
    for _ in range(n_steps):
        reconstruction, logits, _ = network(images)
        optimizer.step((reconstruction - images).square().mean() + logits.mean())
    return {k: p.detach() - before[k] for k, p in network.named_parameters()}


def test_every_weight_moves_and_stays_finite_and_in_its_place(network):
    places = [p.data_ptr() for p in network.parameters()]
    for name, moved in move(network, n_steps=5).items():
        assert moved.isfinite().all(), name
        assert moved.any(), name
    assert [p.data_ptr() for p in network.parameters()] == places
    kernels = [p for p in network.parameters() if p.ndim == 4]
    layout = torch.channels_last
    assert all(p.is_contiguous(memory_format=layout) for p in kernels)


def test_steps_of_kernels_have_about_equal_singular_values(network):
    moved = move(network)
    first = 0.01 / 25  # the schedule begins at a 25th of the peak
    for kernel in (way for way in moved.values() if way.ndim == 4):
        if len(kernel) > 4:
            values = torch.linalg.svdvals(kernel.flatten(1))
            assert values[0] < 1.3 * values[3], kernel.shape
        # As long as steps of AdamW.
        assert 0.05 * first < kernel.square().mean().sqrt() < 0.5 * first
    gradient = network.mark4[2][0].weight.grad.flatten(1)
    values = torch.linalg.svdvals(gradient)  # in which they differ
    assert values[0] > 2 * values[3]


@pytest.mark.parametrize("n_steps", [1, 2, 8, 9, 10, 11, 40])
def test_every_number_of_steps_has_a_schedule(n_steps):
    """OneCycleLR by itself divides by zero for nine steps."""
    network = torch.nn.Conv2d(1, 4, 3).to(memory_format=torch.channels_last)
    optimizer = Optimizer(network, 0.01, n_steps)
    way = []
    for _ in range(n_steps):
        before = network.weight.detach().clone()
        optimizer.step(network(torch.ones(2, 1, 5, 5)).square().mean())
        way.append(float((network.weight.detach() - before).norm()))
    assert all(p.isfinite().all() for p in network.parameters())
    if n_steps > 10:  # it rises, then falls
        assert way[0] < way[n_steps // 10] > way[-1]
