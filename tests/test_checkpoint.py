"""Trainings that were stopped resume, and come to the same end."""

import pickle
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

import skad.network.training
from skad import ImageFolder, PatchAutoencoderDetector
from skad.cli.main import main

N_STEPS = 2 * 5  # 9 images an epoch, 2 at a time


class Stopped(Exception):
    """What stops a training here."""


@pytest.fixture(autouse=True)
def every_step(monkeypatch):
    """A checkpoint is written after every step, not every half minute."""
    monkeypatch.setattr("skad.network.checkpoint._SECONDS", 0.0)


@pytest.fixture
def stop_after(monkeypatch):
    """Stop the next training after so many steps of it."""
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


@pytest.fixture(scope="module")
def good():
    shape = (13, 24, 32, 3)
    return np.random.default_rng(0).integers(90, 110, shape, dtype=np.uint8)


def detector(**parameters):
    """On a GPU, it would be saved every fourth step."""
    settings = {"epochs": 2, "batch_size": 2, "random_state": 0, "target_fpr": 0.4}
    return PatchAutoencoderDetector(8, device="cpu", **(settings | parameters))


@pytest.fixture(scope="module")
def whole(good):
    """A training that was not stopped."""
    return detector().fit(good)


@pytest.fixture
def stopped(good, stop_after, tmp_path):
    """The file of a training that was stopped after three steps."""
    path = tmp_path / "c"
    stop_after(3)
    with pytest.raises(Stopped):
        detector().fit(good, checkpoint=path)
    stop_after(N_STEPS)
    return path


def assert_equal(a, b, X):
    np.testing.assert_array_equal(a.anomaly_map(X), b.anomaly_map(X))
    np.testing.assert_array_equal(a.calibration_scores_, b.calibration_scores_)
    assert a.history_ == b.history_
    for name, tensor in a.network_.state_dict().items():
        assert torch.equal(tensor, b.network_.state_dict()[name]), name


# --- It resumes -------------------------------------------------------------------


@pytest.mark.parametrize("stops", [(N_STEPS - 1,), (3, 2, 1)])
def test_it_resumes_to_the_same_end(good, whole, stops, stop_after, tmp_path, capsys):
    path = tmp_path / "c"
    for n in stops:
        stop_after(n)
        with pytest.raises(Stopped):
            detector().fit(good, checkpoint=path)
        assert path.exists()
    made = stop_after(N_STEPS)
    again = detector(verbose=1).fit(good, checkpoint=path)
    assert len(made) == N_STEPS - sum(stops)
    assert not list(tmp_path.iterdir())
    assert f" {N_STEPS}/{N_STEPS} " in capsys.readouterr().err
    assert_equal(whole, again, good)


def test_batches_drawn_ahead_are_not_lost(good, stop_after, monkeypatch, tmp_path):
    """As on a GPU, where several batches are drawn before they are used."""
    together = skad.network.training._together
    monkeypatch.setattr(skad.network.training, "_together", lambda x, _: together(x, 3))
    whole = detector().fit(good)
    stop_after(8)  # two of the third three are lost
    with pytest.raises(Stopped):
        detector().fit(good, checkpoint=tmp_path / "c")
    made = stop_after(N_STEPS)
    again = detector().fit(good, checkpoint=tmp_path / "c")
    assert len(made) == N_STEPS - 6
    assert_equal(whole, again, good)


def test_a_warm_start_resumes_too(good, stop_after, tmp_path):
    def trained():
        return detector(warm_start=True, epochs=1).fit(good[:8])

    whole = trained().fit(good)
    again = trained()
    stop_after(2)
    with pytest.raises(Stopped):
        again.fit(good, checkpoint=tmp_path / "c")
    stop_after(N_STEPS)
    with pytest.raises(ValueError, match="with other weights to begin with"):
        detector(epochs=1).fit(good, checkpoint=tmp_path / "c")
    assert_equal(whole, again.fit(good, checkpoint=tmp_path / "c"), good)


def test_another_training_does_not_resume(good, stopped):
    kept = stopped.read_bytes()

    def refused(match, X=good, y=None, **change):
        with pytest.raises(ValueError, match=f"with {match}.*to start anew, delete"):
            detector(**change).fit(X, y, checkpoint=stopped)

    refused("epochs=2; this call has epochs=5", epochs=5)
    refused(
        "learning_rate=0.01, random_state=0; this call has learning_rate=0.02, "
        "random_state=1",
        learning_rate=0.02,
        random_state=1,
    )
    refused("n_images=13; this call has n_images=12", good[1:])
    refused("other images", good[::-1].copy())
    refused("other labels or groups", good, [-1] + 12 * [1])
    assert stopped.read_bytes() == kept
    detector(target_fpr=0.45, verbose=1).fit(good, checkpoint=stopped)  # the same one
    assert not stopped.exists()


# --- Damaged and other files ------------------------------------------------------


class Hostile:
    """Would run code where it is unpickled."""

    def __reduce__(self):
        return (exec, ("raise SystemExit('code was run')",))


def flip_a_bit(content, rng):
    changed = bytearray(content)
    changed[rng.integers(len(content))] ^= 1 << rng.integers(8)
    return bytes(changed)


def damaged(content):
    """A few ways in which a file is none of ours, or no longer."""
    rng = np.random.default_rng(0)
    yield from (b"", b"notes of mine", pickle.dumps(Hostile()), content[:-1000])
    yield from (flip_a_bit(content, rng) for _ in range(10))


def test_what_is_no_checkpoint_or_damaged_is_refused(good, stopped):
    stopped.with_name("c.previous").unlink()
    for content in damaged(stopped.read_bytes()):
        stopped.write_bytes(content)
        with pytest.raises(ValueError, match=r"c holds no unfinished training that"):
            detector().fit(good, checkpoint=stopped)
        assert stopped.read_bytes() == content


@pytest.mark.parametrize("is_there", [True, False])
def test_the_file_before_a_damaged_one_takes_its_place(good, stopped, whole, is_there):
    if is_there:
        content = flip_a_bit(stopped.read_bytes(), np.random.default_rng(0))
        stopped.write_bytes(content)
        with pytest.warns(UserWarning, match=r"from the file before it, .*c\.prev"):
            again = detector().fit(good, checkpoint=stopped)
    else:  # stopped between two writes
        stopped.unlink()
        again = detector().fit(good, checkpoint=stopped)
    assert_equal(whole, again, good)
    assert not list(stopped.parent.iterdir())


@pytest.mark.parametrize("random_state", [None, np.random.RandomState(0)])
def test_a_checkpoint_needs_a_random_state(good, tmp_path, random_state):
    with pytest.raises(ValueError, match="checkpoint needs a random_state that is an"):
        detector(random_state=random_state).fit(good, checkpoint=tmp_path / "c")


def test_an_unwritable_place_is_an_error_before_training(good, stop_after, tmp_path):
    made = stop_after(N_STEPS)
    with pytest.raises(OSError, match="is a folder"):
        detector().fit(good, checkpoint=tmp_path)
    assert not made


def test_a_full_disk_does_not_end_a_training(good, whole, monkeypatch, tmp_path):
    def full(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("skad.network.checkpoint.write_atomically", full)
    with pytest.warns(UserWarning, match="No space left on device; it goes on"):
        again = detector().fit(good, checkpoint=tmp_path / "c")
    assert_equal(whole, again, good)


def test_nothing_is_written_within_half_a_minute(good, monkeypatch, tmp_path):
    monkeypatch.undo()
    monkeypatch.setattr("skad.network.checkpoint.write_atomically", None)
    detector().fit(good, checkpoint=tmp_path / "c")


# --- The command line -------------------------------------------------------------


@pytest.fixture
def call(good, tmp_path):
    """A command that learns from files."""
    folder = tmp_path / "good"
    folder.mkdir()
    for i, image in enumerate(good):
        Image.fromarray(image).save(folder / f"{i:02}.png")
    assert len(ImageFolder(folder)) == 13
    model = tmp_path / "part.safetensors"
    command = ["fit", str(folder), "--model", str(model), "--epochs", "2"]
    return [*command, "--patch-size", "8", "--target-fpr", "0.3", "--device", "cpu"]


def test_the_command_line_resumes(call, stop_after, tmp_path, capsys):
    stop_after(1)
    with pytest.raises(Stopped):
        main(call)
    unfinished = tmp_path / "part.safetensors.unfinished"
    capsys.readouterr()
    assert main([*call, "--seed", "1"]) == 2
    said = capsys.readouterr().err
    assert "0; this call has " in said
    assert "--seed" in said
    assert "--restart" in said
    made = stop_after(N_STEPS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert main(call) == 0
    assert f"going on with  {unfinished}" in capsys.readouterr().out
    assert len(made) == 1
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"good", "part.safetensors"}


def test_the_command_line_starts_anew(call, stop_after, tmp_path, capsys):
    stop_after(1)
    with pytest.raises(Stopped):
        main(call)
    made = stop_after(N_STEPS)
    assert main([*call, "--seed", "1", "--restart"]) == 0
    assert "going on" not in capsys.readouterr().out
    assert len(made) == 2
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"good", "part.safetensors"}


def test_a_model_that_cannot_be_stored_loses_no_training(
    call, tmp_path, monkeypatch, stop_after
):
    def full(path, content):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("skad.model_io.model_file.write_atomically", full)
        assert main(call) == 2
    assert (tmp_path / "part.safetensors.unfinished").exists()
    made = stop_after(1)
    assert main(call) == 0
    assert not made  # the training was at its end
