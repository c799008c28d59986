"""The training loop: what it shows the network, and that the network learns."""

import numpy as np
import pytest
import torch

from skad.network import model as _networks
from skad.network import training as _training
from skad.network.augmentation import Appearance, augment, shades
from skad.network.training import Order, step, train

STILL = Appearance(noise_level=0.1, brightness=0.0, contrast=0.0, shading=0.0, flips=())


def global_numpy_state():
    return np.random.get_state(legacy=False)  # noqa: NPY002


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def new_network(n_channels=1):
    return _networks.new_network(n_channels, torch.Generator().manual_seed(0))


def discs(n=12, size=(32, 32), n_channels=1):
    """Good images: a bright disc in the middle, with a little noise."""
    rows, columns = (torch.arange(float(s)) - (s - 1) / 2 for s in size)
    disc = torch.hypot(rows[:, None], columns[None, :]) < 9
    noise = torch.randn(n, n_channels, *size, generator=generator(1))
    return 2.0 * disc - 0.5 + 0.05 * noise


def run(network, images, *, n_steps=3, seed=0, **options):
    settings = {
        "batch_size": 4,
        "learning_rate": 0.01,
        "patch_sizes": (12,),
        "appearance": STILL,
        "roi": None,
    }
    losses = train(
        network,
        lambda indices: images[indices],
        len(images),
        n_steps=n_steps,
        generator=generator(seed),
        **(settings | options),
    )
    return losses


def weights(network):
    return {k: v.clone() for k, v in network.state_dict().items()}


@pytest.fixture(scope="module")
def trained():
    """A network trained on discs, and the losses on the way."""
    network = new_network()
    return network, list(run(network, discs(), n_steps=100))


def test_losses_fall_on_an_easy_problem(trained):
    _, losses = trained
    assert len(losses) == 100
    assert all(np.isfinite(list(loss.values())).all() for loss in losses)
    for name in ("loss", "reconstruction_loss", "anomaly_loss"):
        values = [loss[name] for loss in losses]
        assert np.mean(values[-10:]) < 0.8 * np.mean(values[:10]), name


def test_a_trained_network_marks_what_does_not_belong(trained):
    network, _ = trained
    assert not network.training
    spoilt = discs(n=16)[12:]
    spoilt[:, :, 20:26, 4:10] = 1.5
    with torch.no_grad():
        logits = network(spoilt)[1]  # half the resolution
    inside = torch.zeros(16, 16, dtype=torch.bool)
    inside[10:13, 2:5] = True
    outside = torch.ones(16, 16, dtype=torch.bool)
    outside[8:15, :7] = False
    assert logits[:, inside].mean() > logits[:, outside].mean() + 1


def test_what_is_yielded_adds_up():
    for loss in run(new_network(), discs()):
        assert set(loss) == {"loss", "reconstruction_loss", "anomaly_loss"}
        rebuilt, marked = (
            loss[f"{name}_loss"] + _training._LEAST_LOSS
            for name in ("reconstruction", "anomaly")
        )
        assert loss["loss"] == pytest.approx((rebuilt * marked**2) ** (1 / 3))


def test_what_is_rebuilt_exactly_leaves_the_loss_finite():
    network, black = new_network().train(), torch.zeros(4, 1, 32, 32)
    for parameter in network.to_image.parameters():
        torch.nn.init.zeros_(parameter)
    losses = step(network, black, black, black)
    assert losses["reconstruction_loss"] == 0
    losses["loss"].log().backward()
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_several_batches_can_be_changed_at_once(monkeypatch):
    """As on a GPU: as many steps, on batches of the same size."""
    together, sizes = _training._together, []

    def noted(network, *batch):
        sizes.append([len(x) for x in batch])
        return step(network, *batch)

    monkeypatch.setattr(_training, "_together", lambda x, _: together(x, 3))
    monkeypatch.setattr(_training, "step", noted)
    roi = torch.ones(32, 32)
    losses = list(run(new_network(), discs(), n_steps=100, roi=roi))
    assert sizes == [[4, 4, 4]] * 100  # 33 times three, and one alone
    values = [loss["loss"] for loss in losses]
    assert np.mean(values[-10:]) < 0.8 * np.mean(values[:10])


def test_batches_put_together_keep_their_order():
    batches = [torch.full((2, 1, 1, 1), float(i)) for i in range(5)]
    found = list(_training._together(batches, 2))
    assert [len(several) for several in found] == [4, 4, 2]
    assert torch.equal(torch.cat(found), torch.cat(batches))


def test_batches_of_large_images_stay_alone(monkeypatch):
    batches = [torch.zeros(2, 3, 8, 8) for _ in range(5)]
    monkeypatch.setattr(_training, "_MOST_PIXELS", 4 * 8 * 8)
    assert [len(x) for x in _training._together(batches, 4)] == [4, 4, 2]
    monkeypatch.setattr(_training, "_MOST_PIXELS", 8)
    assert [len(x) for x in _training._together(batches, 4)] == [2] * 5


def test_the_network_ends_as_an_average_of_its_way():
    network = new_network()
    way = [weights(network) for _ in run(network, discs(), n_steps=30)]
    end = weights(network)
    name = "to_image.0.weight"
    assert not torch.equal(end[name], way[-1][name])
    for name in ("down2.0.0.weight", "to_image.0.weight", "down2.0.1.running_mean"):
        visited = torch.stack([state[name] for state in way])
        assert (end[name] <= visited.amax(0) + 1e-6).all()
        assert (end[name] >= visited.amin(0) - 1e-6).all()
        late, early = (visited[i] for i in (-1, 0))
        assert (end[name] - late).norm() < (end[name] - early).norm()


def test_moving_average_of_the_last_tenth():
    mean = torch.zeros(2)
    n_steps = 200
    for i in range(1, n_steps + 1):
        _training._moving_average([mean], [torch.full((2,), float(i))], torch.tensor(i))
    delay = n_steps - float(mean[0])
    assert 0.05 * n_steps < delay < 0.15 * n_steps


def test_counters_are_copied_not_averaged():
    count = torch.tensor(3)
    _training._moving_average([count], [torch.tensor(8)], torch.tensor(50))
    assert int(count) == 8


@pytest.mark.parametrize("n_steps", [1, 2, 5])
def test_few_steps(n_steps):
    network = new_network()
    before = weights(network)
    assert len(list(run(network, discs(), n_steps=n_steps))) == n_steps
    after = weights(network)
    assert not torch.equal(before["down2.0.0.weight"], after["down2.0.0.weight"])
    assert all(value.isfinite().all() for value in after.values())


def test_one_image_no_larger_than_the_stride():
    losses = run(new_network(), discs(n=1, size=(16, 16)), batch_size=2)
    assert len(list(losses)) == 3


def test_equal_generators_train_equal_networks():
    trained = []
    for seed in (0, 0, 1):
        network = new_network()
        list(run(network, discs(), seed=seed))
        trained.append(weights(network))
    first, again, other = trained
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["down2.0.0.weight"], other["down2.0.0.weight"])


def test_global_generators_are_left_alone():
    network, images = new_network(), discs()
    state, numpy_state = torch.get_rng_state(), global_numpy_state()
    list(run(network, images))
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_equal(global_numpy_state(), numpy_state)


def test_the_training_images_are_not_changed():
    images = discs()
    before = images.clone()
    list(run(new_network(), images))
    assert torch.equal(images, before)


def test_nothing_counts_outside_of_the_roi(monkeypatch):
    roi = torch.zeros(32, 32)
    roi[4:20, 8:28] = 1.0
    shown = []

    def spy(network, good, defective, visibility):
        shown.append((good, defective, visibility))
        return step(network, good, defective, visibility)

    monkeypatch.setattr(_training, "step", spy)
    list(run(new_network(), discs(), roi=roi))
    assert len(shown) == 3
    for tensors in shown:
        for tensor in tensors:
            assert (tensor[:, :, roi == 0] == 0).all()
            assert tensor[:, :, roi == 1].any()


@pytest.mark.parametrize(("n_images", "batch_size"), [(10, 4), (7, 7), (3, 8), (1, 2)])
def test_all_images_are_shown_before_any_is_shown_again(n_images, batch_size):
    order, batches = Order(n_images, 20, batch_size, generator()), []
    for known in order.groups():
        for batch in known:
            batches.append(batch)
            order.done()
    assert [len(b) for b in batches] == [batch_size] * 20
    shown = np.concatenate(batches)
    passes = [shown[i : i + n_images].tolist() for i in range(0, len(shown), n_images)]
    *whole, rest = passes
    assert all(sorted(indices) == list(range(n_images)) for indices in whole)
    assert len(set(rest)) == len(rest)
    if n_images > 3:
        assert whole[0] != whole[1]  # in a new order


def slopes(images):
    """Mean steps downwards and to the right, of each image: (n, 2)."""
    down = images.diff(dim=2).mean((1, 2, 3))
    right = images.diff(dim=3).mean((1, 2, 3))
    return torch.stack([down, right], 1)


@pytest.mark.parametrize("flips", [(), (2,), (3,), (2, 3)])
@pytest.mark.parametrize("size", [(32, 32), (16, 48)])
def test_images_are_mirrored_along_the_allowed_axes_only(flips, size):
    rows, columns = (torch.linspace(-1, 1, s) for s in size)
    ramp = rows[:, None] + columns[None, :]
    images = ramp.expand(64, 2, *size)
    up = slopes(augment(images, STILL._replace(flips=flips), generator())) > 0
    for axis in (2, 3):
        seen = set(up[:, axis - 2].tolist())
        assert seen == ({True, False} if axis in flips else {True})


def test_images_vary_within_narrow_bounds():
    images = discs(n=40, n_channels=3)
    varied = augment(images, STILL, generator())
    assert varied.shape == images.shape
    assert varied.dtype == images.dtype
    assert not torch.equal(varied, images)
    assert abs(float(varied.std() / images.std()) - 1) < 0.1
    assert abs(float(varied.mean() - images.mean())) < 0.1


def test_a_flat_image_stays_flat():
    """Sharpening, shifting and mirroring change nothing there, edges included."""
    images = torch.full((20, 1, 24, 24), 2.0)
    varied = augment(images, STILL._replace(flips=(2, 3)), generator())
    torch.testing.assert_close(varied, varied[:, :, :1, :1].expand_as(varied))


def test_light_and_contrast_vary_as_good_images_do():
    images = discs(n=200)
    plain = augment(images, STILL, generator())
    bright = augment(images, STILL._replace(brightness=2.0), generator())
    rich = augment(images, STILL._replace(contrast=1.0), generator())
    assert bright.mean((1, 2, 3)).std() > 3 * plain.mean((1, 2, 3)).std()
    assert rich.std((1, 2, 3)).std() > 3 * plain.std((1, 2, 3)).std()


def test_shading_varies_smoothly_from_side_to_side():
    images = torch.zeros(200, 2, 32, 48)
    varied = augment(images, STILL._replace(shading=4.0), generator())
    assert float(shades(varied).std(0).mean()) == pytest.approx(1.0, abs=0.3)
    steps = torch.cat([varied.diff(dim=2).flatten(), varied.diff(dim=3).flatten()])
    assert steps.abs().max() < 1.0  # one part in 15 of 4 standard deviations of 2
    tint = varied[:, 0] - varied[:, 1]  # the same in all channels, a colour aside
    torch.testing.assert_close(tint, tint[:, :1, :1].expand_as(tint))


def test_shades_are_means_of_cells_without_the_images():
    images = torch.arange(3.0).repeat_interleave(4)[:, None].expand(2, 5, 12, 12)
    below = torch.tensor([-1.0, -1, -1, 0, 0, 0, 1, 1, 1])
    torch.testing.assert_close(shades(images + 7), below.expand(2, 9))


def test_shifts_keep_the_place_within_a_few_pixels():
    images = torch.zeros(100, 1, 64, 64)
    images[:, :, 30, 30] = 10.0
    varied = augment(images, STILL, generator())[:, 0]
    peaks = (varied - varied.flatten(1).median(1).values[:, None, None]).flatten(1)
    rows, columns = np.divmod(peaks.argmax(1).numpy(), 64)
    for places in (rows, columns):
        assert abs(places - 30).max() <= 8
        assert len(set(places)) > 1


def test_equal_generators_vary_equally():
    images = discs(n_channels=3)
    first, again, other = (augment(images, STILL, generator(s)) for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
