"""Trainings that were stopped go on and come to the same end."""

import io
import pickle
import warnings
from hashlib import sha256
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from PIL import Image

import skad.model_io.model_file
import skad.network.checkpoint
import skad.network.training
from skad import ImageFolder, PatchAutoencoderDetector
from skad.cli.main import main
from skad.network.training import Order


class Stopped(Exception):
    """What stops a training here."""


@pytest.fixture(autouse=True)
def every_step(monkeypatch):
    """A checkpoint is written after every step, not every half minute."""
    monkeypatch.setattr(skad.network.checkpoint, "_SECONDS", 0.0)


@pytest.fixture
def stop_after(monkeypatch):
    """Stop the next training when so many steps of it were made."""
    step = skad.network.training.step

    def set_number(n):
        made = []

        def counted(*args):
            if len(made) == n:
                raise Stopped
            made.append(args)
            return step(*args)

        monkeypatch.setattr(skad.network.training, "step", counted)
        return made

    return set_number


@pytest.fixture(scope="module")
def good():
    shape = (13, 24, 32, 3)
    return np.random.default_rng(0).integers(90, 110, shape, dtype=np.uint8)


def detector(**parameters):
    """Make a detector that keeps every step: on a GPU, it would be every fourth."""
    settings = {"epochs": 4, "batch_size": 2, "random_state": 0, "target_fpr": 0.4}
    return PatchAutoencoderDetector(8, device="cpu", **(settings | parameters))


N_STEPS = 4 * 5  # 9 images an epoch, 2 at a time


def assert_equal(a, b, X):
    np.testing.assert_array_equal(a.anomaly_map(X), b.anomaly_map(X))
    np.testing.assert_array_equal(a.calibration_scores_, b.calibration_scores_)
    np.testing.assert_array_equal(a._fitted.trained_on, b._fitted.trained_on)
    assert a.history_ == b.history_
    for name, tensor in a.network_.state_dict().items():
        assert torch.equal(tensor, b.network_.state_dict()[name]), name


@pytest.mark.parametrize("stops", [(1,), (7,), (N_STEPS - 1,), (3, 2, 1, 4)])
def test_it_goes_on_to_the_same_end(good, stops, stop_after, tmp_path):
    path = tmp_path / "fit.unfinished"
    roi = np.ones(good.shape[1:3], bool)
    roi[:4] = False
    whole = detector(roi=roi).fit(good)
    for n in stops:
        stop_after(n)
        with pytest.raises(Stopped):
            detector(roi=roi).fit(good, checkpoint=path)
        assert path.exists()
    made = stop_after(N_STEPS)
    again = detector(roi=roi).fit(good, checkpoint=path)
    assert len(made) == N_STEPS - sum(stops)
    assert not path.exists()
    assert_equal(whole, again, good)


def test_several_batches_at_once_go_on_as_well(good, stop_after, monkeypatch, tmp_path):
    """As on a GPU, where images are drawn before they are used."""
    together = skad.network.training._together
    monkeypatch.setattr(skad.network.training, "_together", lambda x, _: together(x, 3))
    whole = detector().fit(good)
    stop_after(8)  # two of the third three are lost
    with pytest.raises(Stopped):
        detector().fit(good, checkpoint=tmp_path / "c")
    made = stop_after(N_STEPS)
    again = detector().fit(good, checkpoint=tmp_path / "c")
    assert len(made) == N_STEPS - 6
    np.testing.assert_array_equal(whole._fitted.trained_on, again._fitted.trained_on)
    assert len(again.history_) == 4


def test_a_folder_and_a_further_training_go_on(good, stop_after, tmp_path):
    folder = tmp_path / "good"
    folder.mkdir()
    for i, image in enumerate(good):
        Image.fromarray(image).save(folder / f"{i:02}.png")

    def trained():
        first = detector(warm_start=True).fit(good[:8])
        return first.set_params(epochs=2)

    whole = trained().fit(ImageFolder(folder))
    again = trained()
    stop_after(4)
    with pytest.raises(Stopped):
        again.fit(ImageFolder(folder), checkpoint=tmp_path / "c")
    made = stop_after(N_STEPS)
    with pytest.raises(ValueError, match="with other weights to begin with"):
        detector().set_params(epochs=2).fit(
            ImageFolder(folder), checkpoint=tmp_path / "c"
        )
    trained_on = again.fit(ImageFolder(folder), checkpoint=tmp_path / "c")
    assert 0 < len(made) < len(whole.history_) * 6
    assert_equal(whole, trained_on, good)


def test_the_bar_and_the_epochs_go_on(good, stop_after, tmp_path, capsys):
    stop_after(7)
    with pytest.raises(Stopped):
        detector().fit(good, checkpoint=tmp_path / "c")
    stop_after(N_STEPS)
    again = detector(verbose=1).fit(good, checkpoint=tmp_path / "c")
    assert [epoch["epoch"] for epoch in again.history_] == [1, 2, 3, 4]
    assert f" {N_STEPS}/{N_STEPS} " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "was", "now"),
    [
        ({"epochs": 5}, "epochs=4", "epochs=5"),
        ({"patch_size": (9, 4)}, "patch_size=8", r"patch_size=\(9, 4\)"),
        ({"random_state": 1}, "random_state=0", "random_state=1"),
        ({"learning_rate": 0.02}, "learning_rate=0.01", "learning_rate=0.02"),
        ({"validation_fraction": 0.5}, "n_fraction=0.3", "n_fraction=0.5"),
    ],
)
def test_another_training_is_not_gone_on_with(
    good, change, was, now, stop_after, tmp_path
):
    path = tmp_path / "c"
    stop_after(3)
    with pytest.raises(Stopped):
        detector().fit(good, checkpoint=path)
    kept = path.read_bytes()
    stop_after(N_STEPS)
    differs = f"with [a-z_]*{was}; this call has [a-z_]*{now}.*to start anew, delete"
    with pytest.raises(ValueError, match=differs):
        detector().set_params(**change).fit(good, checkpoint=path)
    with pytest.raises(ValueError, match="with other images"):
        detector().fit(good[::-1].copy(), checkpoint=path)
    with pytest.raises(ValueError, match="with n_images=13; this call has n_images=12"):
        detector().fit(good[1:], checkpoint=path)
    with pytest.raises(ValueError, match="with other labels or groups"):
        detector().fit(good, [-1] + 12 * [1], checkpoint=path)
    assert path.read_bytes() == kept
    detector(target_fpr=0.45, verbose=1).fit(good, checkpoint=path)  # the same training
    assert not path.exists()


class Hostile:
    """Would run code where it is unpickled."""

    def __reduce__(self):
        return (exec, ("raise SystemExit('code was run')",))


@pytest.fixture(scope="module")
def whole(good):
    """A training that was not stopped."""
    return detector().fit(good)


@pytest.fixture
def stopped(good, stop_after, tmp_path):
    """The newest file of an unfinished training."""
    path = tmp_path / "c"
    stop_after(3)
    with pytest.raises(Stopped):
        detector().fit(good, checkpoint=path)
    stop_after(N_STEPS)
    return path


@pytest.mark.parametrize("kind", ["empty", "text", "pickle", "torch", "list"])
def test_what_is_no_checkpoint_is_refused(good, kind, stopped):
    path = stopped
    path.with_name("c.previous").unlink()
    if kind == "torch":
        torch.save({"training": Hostile()}, path)
    elif kind == "list":
        torch.save([1, 2], path)
    else:
        content = {
            "empty": b"",
            "text": b"notes of mine",
            "pickle": pickle.dumps(Hostile()),
        }
        path.write_bytes(content[kind])
    there = path.read_bytes()
    with pytest.raises(ValueError, match=r"c holds no unfinished training that"):
        detector().fit(good, checkpoint=path)
    assert path.read_bytes() == there


def flip_bits(path, rng):
    content = bytearray(path.read_bytes())
    for place in rng.integers(len(content), size=rng.integers(1, 5)):
        content[place] ^= 1 << rng.integers(8)
    path.write_bytes(content)


@pytest.mark.parametrize("damage", ["flipped", "cut", "emptied"])
def test_a_damaged_file_is_told_of_and_the_one_before_it_gone_on_from(
    good, damage, stopped, whole
):
    path = stopped
    if damage == "flipped":
        flip_bits(path, np.random.default_rng(0))
    else:
        path.write_bytes(path.read_bytes()[: -1000 if damage == "cut" else 0])
    with pytest.warns(UserWarning, match=r"goes on from the file before it, .*c\.prev"):
        again = detector().fit(good, checkpoint=path)
    assert_equal(whole, again, good)
    assert not list(path.parent.iterdir())


def test_flipped_bits_are_refused(good, stopped):
    path = stopped
    path.with_name("c.previous").unlink()
    content, rng = path.read_bytes(), np.random.default_rng(0)
    for _ in range(20):
        path.write_bytes(content)
        flip_bits(path, rng)
        with pytest.raises(ValueError, match=r"is damaged|no unfinished training"):
            detector().fit(good, checkpoint=path)


def without(name):
    return lambda state: state.pop(name)


def reshaped(name, *keys):
    def change(state):
        place = state[name]
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = place[keys[-1]][None]

    return change


FORGED = {
    "no network": without("network"),
    "no average": without("average"),
    "no optimizer": without("optimizer"),
    "no order": without("order"),
    "no history": without("history"),
    "no training": without("training"),
    "weights": reshaped("network", "down2.0.0.weight"),
    "momentum": reshaped("optimizer", "muon", "state", 0, "momentum_buffer"),
    "moments": reshaped("optimizer", "adam", "state", 0, "exp_avg"),
    "steps": lambda state: state["order"].update(n_left=10**9),
    "places": lambda state: state["order"]["drawn"].add_(99),
    "a random state": lambda state: state["order"].update(generator=torch.zeros(3)),
    "text": lambda state: state.update(network="text"),
    "parameters": lambda state: state["training"].update(parameters=[1]),
}


@pytest.mark.parametrize("change", FORGED.values(), ids=FORGED.keys())
def test_a_file_that_contradicts_itself_is_refused(good, change, stopped):
    path = stopped
    path.with_name("c.previous").unlink()
    magic = skad.network.checkpoint._MAGIC
    state = torch.load(io.BytesIO(path.read_bytes()[len(magic) + 32 :]))
    change(state)
    forged = io.BytesIO()
    torch.save(state, forged)
    digest = sha256(forged.getvalue()).digest()
    path.write_bytes(magic + digest + forged.getvalue())
    with pytest.raises(ValueError, match=r"is damaged|though it says so"):
        detector().fit(good, checkpoint=path)


@pytest.mark.parametrize("random_state", [None, np.random.RandomState(0)])
def test_a_checkpoint_needs_a_random_state(good, tmp_path, random_state):
    with pytest.raises(ValueError, match="checkpoint needs a random_state that is an"):
        detector(random_state=random_state).fit(good, checkpoint=tmp_path / "c")


def test_a_place_that_cannot_be_written_is_told_of_before_training(
    good, stop_after, tmp_path
):
    made = stop_after(N_STEPS)
    with pytest.raises(OSError, match="is a folder"):
        detector().fit(good, checkpoint=tmp_path)
    assert not made


def test_a_full_disk_does_not_end_a_training(good, monkeypatch, tmp_path):
    def full(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(skad.network.checkpoint, "write_atomically", full)
    with pytest.warns(UserWarning, match="No space left on device; it goes on"):
        again = detector().fit(good, checkpoint=tmp_path / "c")
    assert_equal(detector().fit(good), again, good)


def test_a_checkpoint_is_written_every_half_minute(good, monkeypatch, tmp_path):
    now, written = [0.0], []
    monkeypatch.setattr(skad.network.checkpoint, "_SECONDS", 30.0)
    monkeypatch.setattr(skad.network.checkpoint.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(
        skad.network.checkpoint, "write_atomically", lambda *_: written.append(now[0])
    )
    step = skad.network.training.step

    def slow(*args):
        now[0] += 7.0
        return step(*args)

    monkeypatch.setattr(skad.network.training, "step", slow)
    detector().fit(good, checkpoint=tmp_path / "c")
    assert written == [35.0, *2 * [70.0], *2 * [105.0], *2 * [140.0]]


def test_an_order_goes_on_where_it_was():
    def new():
        return Order(5, 9, 2, torch.Generator().manual_seed(0))

    def rest(order):
        steps = []
        for known in order.groups():
            for batch in known:
                steps.append(batch.tolist())
                order.done()
        return steps

    whole = rest(new())
    assert len(whole) == 9
    for n in range(9):
        order, seen = new(), []
        given = (batch for known in order.groups() for batch in known)
        while len(seen) < n:
            seen.append(next(given).tolist())
            order.done()
        again = new()
        again.load_state_dict(order.state_dict())
        assert seen + rest(again) == whole


@pytest.fixture
def call(good, tmp_path):
    """Return a command that learns from files."""
    folder = tmp_path / "good"
    folder.mkdir()
    for i, image in enumerate(good):
        Image.fromarray(image).save(folder / f"{i:02}.png")
    model = tmp_path / "part.safetensors"
    command = ["fit", str(folder), "--model", str(model), "--epochs", "2"]
    return [*command, "--patch-size", "8", "--target-fpr", "0.3", "--device", "cpu"]


def test_the_command_line_goes_on(call, stop_after, tmp_path, capsys):
    model = tmp_path / "part.safetensors"
    stop_after(1)
    with pytest.raises(Stopped):
        main(call)
    unfinished = tmp_path / "part.safetensors.unfinished"
    assert unfinished.exists()
    capsys.readouterr()
    assert main([*call, "--seed", "1"]) == 2
    said = capsys.readouterr()
    assert "with --seed 0; this call has --seed 1. To go on" in said.err
    assert "--restart" in said.err
    assert "going on" not in said.out
    made = stop_after(N_STEPS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert main(call) == 0
    assert f"going on with  {unfinished}" in capsys.readouterr().out
    assert len(made) == 1
    assert model.exists()
    assert not unfinished.exists()


def test_the_command_line_begins_anew(call, stop_after, tmp_path, capsys):
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
    full = OSError(28, "No space left on device")
    with monkeypatch.context() as patch:
        patch.setattr(
            skad.model_io.model_file, "write_atomically", Mock(side_effect=full)
        )
        assert main(call) == 2
    assert (tmp_path / "part.safetensors.unfinished").exists()
    made = stop_after(1)
    assert main(call) == 0
    assert not made  # the training was at its end
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"good", "part.safetensors"}
