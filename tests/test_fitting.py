"""What is fitted to good images: all that calibrates leaves images out."""

import numpy as np
import pytest
import torch

from skad.images.inputs import as_images
from skad.network.model import new_network
from skad.network.preparation import Preparation
from skad.scoring.anomaly_map import scores_of
from skad.scoring.fitting import fit_mapper, in_folds

CPU = torch.device("cpu")


def draw(n=9, size=(32, 32)):
    rng = np.random.default_rng(0)
    return rng.integers(0, 255, (n, *size, 1), endpoint=True, dtype=np.uint8)


def untrained():
    return new_network(1, torch.Generator().manual_seed(0)).eval()


def fit(images, network, encoder=None, n_folds=3):
    size = images.shape[1:3]
    preparation = Preparation(np.full(1, 0.5), 0.3, size, size)
    folds = in_folds(np.arange(len(images)), n_folds)
    return fit_mapper(network, preparation, as_images(images, None), folds, encoder)


def test_tails_are_those_of_images_left_out(lite0):
    """By Gaussians and neighbours that had seen the images, values would be lower."""
    images = draw()
    mapper, _ = fit(images, untrained(), lite0)
    with torch.inference_mode():
        x = mapper.preparation(images, CPU)
        values = mapper.values(x, (0, 0), x.shape[2:])
    for i in (1, 2, 4, 5):  # distances
        assert mapper.tails[i, 1, 0] > values[i].median()  # of one pixel in two


def test_scores_of_the_images_themselves_are_those_of_images_left_out(lite0):
    images = draw(6)
    mapper, held_out_maps = fit(images, None, lite0, n_folds=6)
    scores, means = scores_of(held_out_maps())
    maps = mapper(images)
    assert scores.shape == means.shape == (6,)
    assert (means > maps.mean((1, 2))).all()
    # In the order of the folds; nothing learns from the odd one about itself.
    odd = images.copy()
    odd[4, 8:24, 8:24] = 0
    _, held_out_maps = fit(odd, None, lite0, n_folds=6)
    assert scores_of(held_out_maps())[0].argmin() == 4


@pytest.mark.parametrize(("n", "n_folds"), [(2, 3), (7, 3), (30, 10)])
def test_folds_are_even_and_keep_parts_together(n, n_folds):
    places = np.random.default_rng(0).permutation(100)[:n]
    folds = in_folds(places, n_folds)
    assert sorted(np.concatenate(folds)) == sorted(places)
    sizes = [len(fold) for fold in folds]
    assert len(folds) == min(n, n_folds)
    assert max(sizes) - min(sizes) <= 1
    parts = places % 5
    folds = in_folds(places, n_folds, parts)
    of_parts = [set(fold % 5) for fold in folds]
    assert sum(map(len, of_parts)) == len(set(parts)) == len(set().union(*of_parts))


def test_fitting_leaves_networks_and_generators_alone(lite0):
    network = untrained()
    both = torch.nn.ModuleList([network, lite0])
    before = {k: v.clone() for k, v in both.state_dict().items()}
    state = torch.get_rng_state()
    fit(draw(4), network, lite0)
    assert torch.equal(torch.get_rng_state(), state)
    after = both.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
