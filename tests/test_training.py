"""Training: losses fall, the network learns, and nothing else changes."""

import numpy as np
import pytest
import torch

from skad.network import model as _model
from skad.network.preparation import Variation
from skad.network.training import Optimizer, shuffled, train

STILL = Variation(noise_level=0.1, brightness=0.0, contrast=0.0, shading=0.0, flips=())


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def new_network(n_channels=1):
    return _model.new_network(n_channels, generator())


def discs(n=12, size=(32, 32)):
    """Good images: a bright disc in the middle, with a little noise."""
    rows, columns = (torch.arange(float(s)) - (s - 1) / 2 for s in size)
    disc = torch.hypot(rows[:, None], columns[None, :]) < 9
    noise = torch.randn(n, 1, *size, generator=generator(1))
    return 2.0 * disc - 0.5 + 0.05 * noise


def run(network, images, *, n_steps=3, batch_size=4, seed=0, roi=None, after=None):
    """Train, with one step an epoch: the history is that of every step."""
    return train(
        network,
        lambda indices: images[indices],
        len(images),
        epochs=n_steps,
        epoch_steps=1,
        batch_size=batch_size,
        learning_rate=0.01,
        patch_sizes=(12,),
        variation=STILL,
        roi=roi,
        generator=generator(seed),
        progress=after,
    )


def weights(network):
    return {k: v.clone() for k, v in network.state_dict().items()}


@pytest.fixture(scope="module")
def trained():
    """A network trained on discs, and the losses on the way."""
    network = new_network()
    return network, run(network, discs(), n_steps=60)


def test_losses_fall_on_an_easy_problem(trained):
    _, losses = trained
    assert len(losses) == 60
    for name in ("loss", "reconstruction_loss", "anomaly_loss"):
        values = [loss[name] for loss in losses]
        assert np.isfinite(values).all()
        assert np.mean(values[-10:]) < 0.8 * np.mean(values[:10]), name
    for loss in losses:  # their weighted geometric mean
        rebuilt, segmented = loss["reconstruction_loss"], loss["anomaly_loss"]
        mean = (rebuilt * segmented**2) ** (1 / 3)
        assert loss["loss"] == pytest.approx(mean, rel=0.01)


def test_a_trained_network_segments_what_does_not_belong(trained):
    network, _ = trained
    assert not network.training
    spoilt = discs(n=16)[12:]
    spoilt[:, :, 20:26, 4:10] = 1.5
    with torch.no_grad():
        logits = network(spoilt)[1]  # half the resolution
    outside = torch.ones(16, 16, dtype=torch.bool)
    outside[8:15, :7] = False
    assert logits[:, 10:13, 2:5].mean() > logits[:, outside].mean() + 1


def test_the_network_ends_as_the_average_of_its_last_steps():
    network, steps = new_network(), []
    run(network, discs(8), after=lambda *_: steps.append(weights(network)), n_steps=20)
    end = weights(network)
    for name in ("down2.0.0.weight", "to_image.0.weight", "down2.0.1.running_mean"):
        visited = torch.stack([state[name] for state in steps])
        assert not torch.equal(end[name], visited[-1])
        assert (end[name] <= visited.amax(0) + 1e-6).all()
        assert (end[name] >= visited.amin(0) - 1e-6).all()
        assert (end[name] - visited[-1]).norm() < (end[name] - visited[0]).norm()
    counter = "down2.0.1.num_batches_tracked"
    assert end[counter] == steps[-1][counter]


def test_nothing_is_shown_outside_the_roi():
    roi = torch.zeros(32, 32)
    roi[4:20, 8:28] = 1.0
    network, shown = new_network(), []
    network.register_forward_pre_hook(lambda _, inputs: shown.extend(inputs))
    run(network, discs(), roi=roi, n_steps=2)
    assert len(shown) == 2
    for x in shown:
        assert (x[:, :, roi == 0] == 0).all()
        assert x[:, :, roi == 1].any()


@pytest.mark.parametrize(("n_images", "batch_size"), [(10, 4), (3, 8)])
def test_all_images_are_shown_before_any_is_shown_again(n_images, batch_size):
    order = shuffled([], n_images, batch_size, 0, 20, generator())
    batches = np.concatenate(list(order))
    assert batches.shape == (20, batch_size)
    shown = batches.flatten().tolist()
    *whole, rest = [shown[i : i + n_images] for i in range(0, len(shown), n_images)]
    assert all(sorted(indices) == list(range(n_images)) for indices in whole)
    assert len(set(rest)) == len(rest)
    if n_images > 3:
        assert whole[0] != whole[1]  # in a new order


# --- The optimizer ----------------------------------------------------------------


def test_steps_of_kernels_have_about_equal_singular_values():
    network = new_network(3).train()
    images = torch.randn(4, 3, 32, 32, generator=generator(1))
    before = {k: p.detach().clone() for k, p in network.named_parameters()}
    places = [p.data_ptr() for p in network.parameters()]
    reconstruction, logits, _ = network(images)
    loss = (reconstruction - images).square().mean() + logits.mean()
    Optimizer(network, 0.01, 20).step(loss)
    first = 0.01 / 25  # the schedule begins at a 25th of the peak
    for name, p in network.named_parameters():
        moved = p.detach() - before[name]
        assert moved.isfinite().all() and moved.any(), name
        if p.ndim == 4:
            assert p.is_contiguous(memory_format=torch.channels_last)
            # As long as steps of AdamW.
            assert 0.05 * first < moved.square().mean().sqrt() < 0.5 * first
            values = torch.linalg.svdvals(moved.flatten(1))
            assert len(values) < 5 or values[0] < 1.3 * values[3], name
    assert [p.data_ptr() for p in network.parameters()] == places
    gradient = network.mark4[2][0].weight.grad.flatten(1)
    values = torch.linalg.svdvals(gradient)  # in which they differ
    assert values[0] > 2 * values[3]


@pytest.mark.parametrize("n_steps", [1, 9, 40])
def test_every_number_of_steps_has_a_schedule(n_steps):
    """OneCycleLR by itself divides by zero for nine steps."""
    network = torch.nn.Conv2d(1, 4, 3).to(memory_format=torch.channels_last)
    optimizer = Optimizer(network, 0.01, n_steps)
    way = []
    for _ in range(n_steps):
        before = network.weight.detach().clone()
        optimizer.step(network(torch.ones(2, 1, 5, 5)).square().mean())
        way.append(float((network.weight.detach() - before).norm()))
    assert np.isfinite(way).all()
    if n_steps > 10:  # it rises, then falls
        assert way[0] < way[n_steps // 10] > way[-1]
