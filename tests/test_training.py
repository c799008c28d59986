"""The training loop: losses fall, the network learns, and nothing else changes."""

import numpy as np
import pytest
import torch

from skad.network import model as _model
from skad.network.augmentation import Variation
from skad.network.training import Order, _together, compute_losses, train

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


def run(network, images, *, n_steps=3, batch_size=4, seed=0, roi=None):
    return train(
        network,
        lambda indices: images[indices],
        len(images),
        n_steps=n_steps,
        batch_size=batch_size,
        learning_rate=0.01,
        patch_sizes=(12,),
        variation=STILL,
        roi=roi,
        generator=generator(seed),
    )


def weights(network):
    return {k: v.clone() for k, v in network.state_dict().items()}


@pytest.fixture(scope="module")
def trained():
    """A network trained on discs, and the losses on the way."""
    network = new_network()
    return network, list(run(network, discs(), n_steps=60))


def test_losses_fall_on_an_easy_problem(trained):
    _, losses = trained
    assert len(losses) == 60
    for name in ("loss", "reconstruction_loss", "anomaly_loss"):
        values = [loss[name] for loss in losses]
        assert np.isfinite(values).all()
        assert np.mean(values[-10:]) < 0.8 * np.mean(values[:10]), name


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


def test_the_loss_is_the_weighted_geometric_mean_of_both(trained):
    for loss in trained[1]:
        rebuilt, segmented = loss["reconstruction_loss"], loss["anomaly_loss"]
        mean = (rebuilt * segmented**2) ** (1 / 3)
        assert loss["loss"] == pytest.approx(mean, rel=0.01)


def test_a_perfect_reconstruction_leaves_the_gradients_finite():
    network, black = new_network().train(), torch.zeros(4, 1, 32, 32)
    for parameter in network.to_image.parameters():
        torch.nn.init.zeros_(parameter)
    losses = compute_losses(network, black, black, black)
    assert losses["reconstruction_loss"] == 0
    losses["loss"].log().backward()
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_batches_are_joined_in_order_unless_they_are_large():
    batches = [torch.full((2, 1, 1, 1), float(i)) for i in range(5)]
    found = list(_together(batches, 2))
    assert [len(several) for several in found] == [4, 4, 2]
    assert torch.equal(torch.cat(found), torch.cat(batches))
    large = [torch.zeros(1, 1, 1, 1).expand(2, 3, 8192, 8192)] * 3  # takes no memory
    assert [len(several) for several in _together(large, 2)] == [2, 2, 2]


def test_the_network_ends_as_the_average_of_its_last_steps():
    network = new_network()
    steps = [weights(network) for _ in run(network, discs(), n_steps=30)]
    end = weights(network)
    for name in ("down2.0.0.weight", "to_image.0.weight", "down2.0.1.running_mean"):
        visited = torch.stack([state[name] for state in steps])
        assert not torch.equal(end[name], visited[-1])
        assert (end[name] <= visited.amax(0) + 1e-6).all()
        assert (end[name] >= visited.amin(0) - 1e-6).all()
        assert (end[name] - visited[-1]).norm() < (end[name] - visited[0]).norm()
    counter = "down2.0.1.num_batches_tracked"
    assert end[counter] == steps[-1][counter]


@pytest.mark.parametrize(("n_images", "n_steps"), [(12, 1), (12, 5), (1, 2)])
def test_few_steps_and_images(n_images, n_steps):
    network = new_network()
    before = weights(network)
    images = discs(n_images, size=(16, 16))
    losses = run(network, images, n_steps=n_steps, batch_size=2)
    assert len(list(losses)) == n_steps
    after = weights(network)
    assert not torch.equal(before["down2.0.0.weight"], after["down2.0.0.weight"])
    assert all(value.isfinite().all() for value in after.values())


def test_equal_generators_train_equal_networks_and_nothing_else_changes():
    images = discs()
    before, state = images.clone(), torch.get_rng_state()
    numpy_state = np.random.get_state(legacy=False)  # noqa: NPY002
    found = []
    for seed in (0, 0, 1):
        network = new_network()
        list(run(network, images, seed=seed))
        found.append(weights(network))
    first, again, other = found
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["down2.0.0.weight"], other["down2.0.0.weight"])
    assert torch.equal(images, before)
    assert torch.equal(torch.get_rng_state(), state)
    found = np.random.get_state(legacy=False)  # noqa: NPY002
    np.testing.assert_equal(found, numpy_state)


def test_nothing_counts_outside_the_roi(monkeypatch):
    roi = torch.zeros(32, 32)
    roi[4:20, 8:28] = 1.0
    shown = []

    def spy(network, *batch):
        shown.extend(batch)
        return compute_losses(network, *batch)

    monkeypatch.setattr("skad.network.training.compute_losses", spy)
    list(run(new_network(), discs(), roi=roi, n_steps=2))
    assert len(shown) == 2 * 3
    for tensor in shown:
        assert (tensor[:, :, roi == 0] == 0).all()
        assert tensor[:, :, roi == 1].any()


@pytest.mark.parametrize(("n_images", "batch_size"), [(10, 4), (7, 7), (3, 8), (1, 2)])
def test_all_images_are_shown_before_any_is_shown_again(n_images, batch_size):
    batches = list(
        np.concatenate(list(Order(n_images, 20, batch_size, generator()).groups()))
    )
    assert [len(b) for b in batches] == [batch_size] * 20
    shown = np.concatenate(batches)
    passes = [shown[i : i + n_images].tolist() for i in range(0, len(shown), n_images)]
    *whole, rest = passes
    assert all(sorted(indices) == list(range(n_images)) for indices in whole)
    assert len(set(rest)) == len(rest)
    if n_images > 3:
        assert whole[0] != whole[1]  # in a new order


def test_an_order_resumes_where_it_was():
    def rest(order):
        return [b.tolist() for group in order.groups() for b in group]

    whole = rest(Order(5, 9, 2, generator()))
    assert len(whole) == 9
    for n in range(9):
        order, again = Order(5, 9, 2, generator()), Order(5, 9, 2, generator(1))
        given = (batch.tolist() for group in order.groups() for batch in group)
        first = [next(given) for _ in range(n)]
        order.n_done = n
        again.load_state_dict(order.state_dict())
        assert first + rest(again) == whole
