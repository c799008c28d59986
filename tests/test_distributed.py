"""Scoring on a Dask cluster: two worker processes here, and what befalls them."""

import csv
import os
import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from image_files import noise, save
from optional import optional

import skad
from skad.cli.main import main
from skad.detectors.files import inspect_files
from skad.inspection.score_files import COLUMNS, score_files

distributed = optional("distributed")
parquet = optional("pyarrow.parquet")

import skad.distributed as _distributed  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning:distributed")
N = 60


@pytest.fixture(scope="module")
def cluster():
    options = {"processes": True, "dashboard_address": ":0"}
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, **options) as one:
        yield one


@pytest.fixture
def client(cluster):
    with distributed.Client(cluster, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=60)
        yield client


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    good = 100 + noise(12, 24, 24) // 16
    detector = skad.PatchAutoencoderDetector(
        8, epochs=1, target_fpr=0.3, device="cpu", random_state=0
    )
    path = tmp_path_factory.mktemp("model") / "part.safetensors"
    skad.save(detector.fit(good), path)
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Noise, two spots, and a file that is no image."""
    folder = tmp_path_factory.mktemp("images")
    for i, pixels in enumerate(100 + noise(N - 1, 24, 24, seed=1) // 16):
        pixels[4:12, 4:12] *= i not in (3, 40)
        save(folder / f"{i:03}.png", pixels)
    (folder / "no_image.png").write_bytes(b"nothing")
    return folder


def rows_of(output):
    """Rows of the data set by their paths, as read by anyone."""
    rows = parquet.read_table(output / _distributed.DATA_SET).to_pylist()
    return sorted(rows, key=lambda row: row["path"])


def parts_of(output):
    """Time of last change of each part."""
    folder = output / _distributed.DATA_SET
    return {path: path.stat().st_mtime_ns for path in folder.glob("*.parquet")}


def serial_rows(model, images, output, **options):
    """Rows of the table that one machine writes, with the types of the data set."""
    detector = skad.load(model)
    inspect, threshold = partial(inspect_files, detector), detector.pixel_threshold_
    score_files(inspect, threshold, [images], output, **options)
    with (output / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    texts, floats = {"path", "verdict", "heat_map"}, {"score", "decision", "p_value"}
    type_of = {n: str if n in texts else float if n in floats else int for n in COLUMNS}
    return [{n: type_of[n](v) if v else None for n, v in row.items()} for row in rows]


def test_scores_are_bit_equal_to_those_of_one_machine(model, images, tmp_path, client):
    expected = serial_rows(model, images, tmp_path / "serial")
    out = tmp_path / "out"
    counts = _distributed.score(
        model, [images], out, client, chunk_size=7, heat_maps=True
    )
    assert rows_of(out) == expected
    assert counts.total() == N and counts["unreadable"] == 1
    assert 2 <= counts["anomalous"] < N - 1
    assert len(parts_of(out)) == -(-N // 7)
    drawn = {path.relative_to(out) for path in out.rglob("*.png")}
    serial = (tmp_path / "serial").rglob("*.png")
    assert drawn == {path.relative_to(tmp_path / "serial") for path in serial}
    metadata = parquet.read_schema(next(iter(parts_of(out)))).metadata
    threshold = skad.load(model).pixel_threshold_
    assert float(metadata[b"skad.threshold"]) == threshold
    assert len(metadata[b"skad.model"]) == 64


def test_a_second_call_scores_only_what_is_missing(model, images, tmp_path, client):
    folder = tmp_path / "a b"
    score = partial(_distributed.score, model, output=folder.as_uri(), client=client)
    first = sorted(images.glob("*.png"))[:10]
    score(first, chunk_size=5)
    before = parts_of(folder)
    lost = min(before)
    lost.unlink()
    counts = score([images], chunk_size=20)  # other chunks than before
    after = parts_of(folder)
    assert before.items() - {(lost, before[lost])} <= after.items()
    paths = [row["path"] for row in rows_of(folder)]
    assert paths == sorted(map(str, images.glob("*.png")))
    assert counts.total() == N
    assert score([images]) == counts and parts_of(folder) == after


def kill_a_worker_after_one_part(client, output):
    """Kill it from a thread; the result is its process, and the number of parts."""
    pid = next(iter(client.run(os.getpid).values()))

    def kill():
        while not parts_of(output):
            time.sleep(0.002)
        n_parts = len(parts_of(output))
        os.kill(pid, signal.SIGKILL)
        return pid, n_parts

    return ThreadPoolExecutor(1).submit(kill)


def test_a_killed_worker_costs_no_row_and_doubles_none(model, images, tmp_path, client):
    killed = kill_a_worker_after_one_part(client, tmp_path)
    counts = _distributed.score(model, [images], tmp_path, client, chunk_size=1)
    pid, n_parts = killed.result()
    assert 0 < n_parts < N
    assert counts.total() == N
    assert [r["path"] for r in rows_of(tmp_path)] == sorted(map(str, images.iterdir()))
    assert not list(tmp_path.rglob("*.part"))
    client.wait_for_workers(2, timeout=60)
    assert pid not in client.run(os.getpid).values()


def test_a_chunk_that_kills_its_workers_stops_no_other(
    model, images, tmp_path, client, cluster, monkeypatch
):
    score = partial(_distributed.score, model, [images], tmp_path, client)
    monkeypatch.setattr(cluster.scheduler, "allowed_failures", 0)
    kill_a_worker_after_one_part(client, tmp_path)
    with pytest.raises(RuntimeError, match=r"chunk.* killed each worker .*begins with"):
        score(chunk_size=1)
    lost = N - len(rows_of(tmp_path))
    assert 1 <= lost <= 8  # those that waited at the worker
    monkeypatch.undo()
    assert score().total() == N


def test_results_of_another_model_or_threshold_stay(model, images, tmp_path, client):
    score = partial(_distributed.score, output=tmp_path, client=client)
    score(model, [images / "000.png"])
    before = parts_of(tmp_path)
    other = skad.load(model).retarget(0.5)
    with pytest.raises(ValueError, match=r"part-.* another model or threshold .*name"):
        score(other, [images])
    assert parts_of(tmp_path) == before
    next(iter(before)).write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"part-.*parquet is damaged; remove it"):
        score(model, [images])


def test_the_command_counts_and_names_what_it_cannot_read(
    model, images, tmp_path, cluster, client, capsys
):
    address = ["--scheduler", cluster.scheduler_address]
    files = [str(images / name) for name in ("000.png", "003.png", "no_image.png")]
    command = ["score", str(model), *files, "--output", str(tmp_path), *address]
    assert main(command) == 1
    out, err = capsys.readouterr()
    assert "1 unreadable" in out and str(tmp_path / "scores.parquet") in out
    assert "skad: unreadable: " in err and "no_image.png: cannot read" in err
    assert len(rows_of(tmp_path)) == 3
    assert not list(tmp_path.rglob("*.png"))
    assert main([*command, "--fdr", "0.1"]) == 2
    assert "--fdr does not go with --scheduler" in capsys.readouterr().err


def test_a_chunk_that_no_worker_finds_is_an_error(model, tmp_path, client):
    file = save(tmp_path / "a.png", noise(24, 24))
    original = _distributed.scoring.list_files
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            _distributed.scoring,
            "list_files",
            lambda *a: [p.with_name("gone.png") for p in original(*a)],
        )
        with pytest.raises(FileNotFoundError, match=r"tcp.* finds none of 1 files"):
            _distributed.score(model, [file], tmp_path / "out", client)
    assert not parts_of(tmp_path / "out")


def test_the_snippets_of_the_page_run(model, images, tmp_path, cluster, client):
    page = Path(__file__).parents[1] / "docs" / "distributed.md"
    text = page.read_text(encoding="utf-8")
    snippets = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict = {}
    for snippet in snippets:
        for shown, here in (
            ("part.safetensors", model),
            ("/mnt/line1/2026", images),
            ("/mnt/checked", tmp_path),
            ("tcp://10.0.0.5:8786", cluster.scheduler_address),
        ):
            snippet = snippet.replace(shown, str(here))
        exec(snippet, names)
    assert len(snippets) == 2 and len(names["table"]) == names["counts"].total() == N


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"sources": []}, r"sources must name at least one image file; got none"),
        ({"output": "s3://bucket/x"}, r"output must be a folder that all workers see"),
        ({"chunk_size": 0}, r"chunk_size must be an int of at least 1; got 0"),
        ({"heat_maps": "yes"}, r"heat_maps must be True or False; got 'yes'"),
    ],
)
def test_wrong_arguments_are_named(model, images, tmp_path, wrong, message):
    right = {"sources": [images], "output": tmp_path, "client": None}
    with pytest.raises(ValueError, match=message):
        _distributed.score(model, **right | wrong)


def test_workers_of_another_version_are_named(client, monkeypatch):
    monkeypatch.setattr(_distributed.cluster, "__version__", "99")
    with pytest.raises(RuntimeError, match=rf"skad 99.*tcp://.*: {skad.__version__}"):
        _distributed.cluster.check_workers(client)


def test_a_scheduler_without_workers_or_none_at_all_is_soon_an_error(
    model, images, capsys, monkeypatch
):
    command = ["score", str(model), str(images), "--scheduler"]
    began = time.monotonic()
    assert main([*command, "tcp://127.0.0.1:9"]) == 2
    assert "no Dask scheduler answers at tcp://127.0.0.1:9" in capsys.readouterr().err
    assert time.monotonic() - began < 10
    monkeypatch.setattr(_distributed.cluster, "_PATIENCE", 1)
    with distributed.LocalCluster(n_workers=0, dashboard_address=":0") as cluster:
        assert main([*command, cluster.scheduler_address]) == 2
    assert "has no worker; start one" in capsys.readouterr().err
