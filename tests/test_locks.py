"""One program at a time writes to a place; who comes second is told who is there."""

import errno
import subprocess
import sys

import filelock
import numpy as np
import pytest
from PIL import Image

import skad
from skad.cli.main import main
from skad.common.locks import locked


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The current folder, with good images, a model and a data set."""
    monkeypatch.chdir(tmp_path)
    X = np.random.default_rng(0).integers(90, 110, (8, 16, 16), dtype=np.uint8)
    for folder in ("good", "data/part/train/good", "data/part/test/good"):
        (tmp_path / folder).mkdir(parents=True)
        for i, image in enumerate(X):
            Image.fromarray(image).save(tmp_path / folder / f"{i}.png")
    detector = skad.PatchAutoencoderDetector(8, epochs=1, target_fpr=0.4)
    skad.save(detector.fit(X), "model")
    (tmp_path / "out").mkdir()
    return tmp_path


def contents(folder):
    return {f: f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def test_a_second_command_is_told_who_writes_there(place, capsys):
    for target, command in [
        ("out", "demo --output out"),
        ("out", "score model good --output out"),
        ("m", "fit good --model m --epochs 1"),
        ("b.json", "benchmark data --output b.json"),
        ("out", "benchmark data --output b.json --models out"),
    ]:
        with locked(target):
            before = contents(place)
            assert main(command.split()) == 2
            assert contents(place) == before
        said = capsys.readouterr()
        assert said.out == ""
        assert f"skad: error: {target} is in use: another program is wri" in said.err
        assert not list(place.rglob(".*"))  # the locks are gone


def test_a_second_fit_does_not_touch_the_checkpoint_of_the_first(tmp_path):
    path = tmp_path / "c"
    detector = skad.PatchAutoencoderDetector(epochs=1, random_state=0)
    with locked(path), pytest.raises(BlockingIOError, match="c is in use"):
        detector.fit(np.zeros((4, 8, 8)), checkpoint=path)
    assert list(tmp_path.iterdir()) == []


HOLD = """
import sys, time
from skad.common.locks import locked
with locked(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_lock_of_a_program_that_crashed_is_free(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(BlockingIOError, match="in use"):
            locked(tmp_path).__enter__()
        holder.kill()
    with locked(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_without_locks_is_warned_of(tmp_path, monkeypatch):
    def acquire(lock):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(filelock.FileLock, "acquire", acquire)
    with pytest.warns(UserWarning, match="file system without locks"), locked(tmp_path):
        pass
