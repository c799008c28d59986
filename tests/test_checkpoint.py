"""Trainings that were stopped resume, and come to the same end."""

import pickle
from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import skad.network.training
from skad import PatchAutoencoderDetector
from skad.cli.main import main

N_STEPS = 6  # two epochs of six images, two at a time


class Stopped(Exception):
    """What stops a training here."""


@pytest.fixture
def clock(monkeypatch):
    """A minute passes whenever a checkpoint looks at the clock."""
    fake = SimpleNamespace(monotonic=count(step=60).__next__)
    monkeypatch.setattr("skad.network.checkpoint.time", fake)


@pytest.fixture(scope="module")
def good():
    shape = (9, 16, 16, 3)
    return np.random.default_rng(0).integers(90, 110, shape, dtype=np.uint8)


@pytest.fixture
def stop_after(monkeypatch):
    """Stop the next training after so many steps of it, which are returned."""
    compute_losses = skad.network.training.compute_losses

    def set_number(n):
        made = []

        def counted(*args):
            if len(made) == n:
                raise Stopped
            made.append(args)
            return compute_losses(*args)

        monkeypatch.setattr(skad.network.training, "compute_losses", counted)
        return made

    return set_number


def detector(**parameters):
    """On the CPU: on a GPU, a training is saved less often."""
    settings = {"epochs": 2, "batch_size": 2, "random_state": 0, "target_fpr": 0.4}
    return PatchAutoencoderDetector(8, device="cpu", **(settings | parameters))


@pytest.fixture
def stopped(clock, good, stop_after, tmp_path):
    """The file of a training that was stopped after three steps."""
    stop_after(3)
    with pytest.raises(Stopped):
        detector().fit(good, checkpoint=tmp_path / "c")
    stop_after(99)
    return tmp_path / "c"


def test_it_resumes_to_the_same_end_and_deletes_the_file(
    good, clock, stop_after, tmp_path, capsys
):
    path, options = tmp_path / "c", {"warm_start": True, "verbose": 1}
    whole, again = (detector(**options).fit(good[:6]) for _ in "ab")
    for n_steps in (3, 1):
        assert "resuming" not in capsys.readouterr().out
        stop_after(n_steps)
        with pytest.raises(Stopped):
            again.fit(good, checkpoint=path)
    assert f"resuming from  {path}" in capsys.readouterr().out
    made = stop_after(N_STEPS)
    again.set_params(target_fpr=0.35).fit(good, checkpoint=path)
    assert len(made) == 2
    assert not list(tmp_path.iterdir())
    stop_after(N_STEPS)
    whole.fit(good)
    assert again.history_ == whole.history_
    expected = whole.network_.state_dict()
    for name, tensor in again.network_.state_dict().items():
        assert torch.equal(tensor, expected[name])
    np.testing.assert_array_equal(again.anomaly_map(good), whole.anomaly_map(good))


def test_another_training_is_told_from_this_one(good, stopped):
    before = stopped.read_bytes()
    warm = detector().fit(good[:6]).set_params(warm_start=True)
    for other, X, what in (
        (detector(), good[::-1].copy(), "hash of images=.*delete"),
        (detector(), good[1:], "n_images=9; this call has n_images=8"),
        (warm, good, "hash of first weights"),
    ):
        with pytest.raises(ValueError, match=f"training with {what}"):
            other.fit(X, checkpoint=stopped)
    assert stopped.read_bytes() == before


class Hostile:
    """Would run code where it is unpickled."""

    def __reduce__(self):
        return (exec, ("raise SystemExit('code was run')",))


def test_what_is_no_checkpoint_or_damaged_is_refused(good, stopped):
    whole = stopped.read_bytes()
    flipped = whole[:-1000] + bytes([whole[-1000] ^ 4]) + whole[-999:]
    for content in (b"", pickle.dumps(Hostile()), whole[:-1000], flipped):
        stopped.write_bytes(content)
        with pytest.raises(ValueError, match=r"c is damaged, or no unfinished train"):
            detector().fit(good, checkpoint=stopped)
        assert stopped.read_bytes() == content


def full(path, content):
    raise OSError(28, "No space left on device")


def test_a_full_disk_does_not_end_a_training(good, clock, tmp_path, monkeypatch):
    monkeypatch.setattr("skad.network.checkpoint.write_atomically", full)
    with pytest.warns(UserWarning, match="No space left on device: training continues"):
        detector().fit(good, checkpoint=tmp_path / "c")


def test_nothing_is_written_within_half_a_minute(good, tmp_path, monkeypatch):
    monkeypatch.setattr("skad.network.checkpoint.write_atomically", full)
    detector().fit(good, checkpoint=tmp_path / "c")  # without a warning


def test_what_cannot_resume_is_an_error_before_training(good, stop_after, tmp_path):
    made = stop_after(0)
    for random_state in (None, np.random.RandomState(0)):
        with pytest.raises(ValueError, match="checkpoint needs a random_state that is"):
            detector(random_state=random_state).fit(good, checkpoint=tmp_path / "c")
    with pytest.raises(OSError, match="is a folder"):
        detector().fit(good, checkpoint=tmp_path)
    assert not made


def test_the_command_line_resumes(
    good, clock, stop_after, tmp_path, capsys, monkeypatch
):
    (tmp_path / "good").mkdir()
    for i, image in enumerate(good):
        Image.fromarray(image).save(tmp_path / "good" / f"{i}.png")
    model = tmp_path / "m.safetensors"
    call = ["fit", str(tmp_path / "good"), "--model", str(model), "--epochs", "2"]
    call += ["--patch-size", "8", "--target-fpr", "0.4", "--device", "cpu"]
    stop_after(1)
    with pytest.raises(Stopped):
        main([*call, "--batch-size", "2"])

    def fit(*options, steps, code=0):
        made = stop_after(N_STEPS)
        assert main([*call, "--batch-size", "2", *options]) == code
        assert len(made) == steps
        return capsys.readouterr()

    capsys.readouterr()
    said = fit("--seed", "1", steps=0, code=2)
    words = ("0; this call has", "--seed", f"{model}.unfinished", "delete the file")
    assert all(word in said.err for word in words)
    (tmp_path / f"{model.name}.unfinished").unlink()
    with monkeypatch.context() as patch:  # the model cannot be stored
        patch.setattr("skad.model_io.model_file.write_atomically", full)
        said = fit("--seed", "1", steps=N_STEPS, code=2)
    assert "resuming" not in said.out
    said = fit("--seed", "1", steps=0)  # the training was at its end
    assert f"resuming from  {model}.unfinished" in said.out
    assert {path.name for path in tmp_path.iterdir()} == {"good", "m.safetensors"}
