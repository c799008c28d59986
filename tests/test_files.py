"""Files are written as a whole, and a place that cannot be written is named early."""

import os
import time

import pytest

from skad.common.files import make_room_for, write_atomically


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_is_written_is_there_and_nothing_else(tmp_path):
    odd_name = b"\xff.png".decode(errors="surrogateescape")
    contents = {"a": b"\x00\xff", "b" * 255: "5 ± 1\n", "c": odd_name}
    expected = [b"\x00\xff", "5 ± 1\n".encode(), b"\xff.png"]
    for name, content in contents.items():
        write_atomically(tmp_path / name, content)
    assert [(tmp_path / name).read_bytes() for name in contents] == expected
    assert names(tmp_path) == sorted(contents)


@pytest.mark.parametrize("step", ["os.fsync", "pathlib.Path.replace"])
def test_a_stop_leaves_the_old_file_whole(tmp_path, monkeypatch, step):
    target = tmp_path / "a.txt"
    write_atomically(target, "old")

    def stop(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(step, stop)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(target, "new")
    assert target.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_what_a_killed_program_was_writing_goes_and_other_files_stay(tmp_path):
    yesterday = time.time() - 24 * 3600
    for name in (".skad-00.part", "a.part"):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (yesterday, yesterday))
    (tmp_path / ".skad-11.part").touch()  # somebody is writing it
    write_atomically(tmp_path / "b", "all of it")
    assert names(tmp_path) == [".skad-11.part", "a.part", "b"]


def test_room_is_made_for_a_file(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    target = make_room_for("~/new/deep/model")
    assert target == tmp_path / "new" / "deep" / "model"
    assert names(target.parent) == []


def test_a_place_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match=r"file/model.* cannot be written: .*name a file"):
        make_room_for(tmp_path / "file" / "model")
    for write in (make_room_for, lambda path: write_atomically(path, "new")):
        with pytest.raises(IsADirectoryError, match="is a folder: name a file"):
            write(tmp_path)
        if hasattr(os, "mkfifo"):
            os.mkfifo(tmp_path / write.__name__)
            with pytest.raises(FileExistsError, match="is a device or a pipe"):
                write(tmp_path / write.__name__)
    monkeypatch.setattr("os.access", lambda path, mode: False)  # root may do all
    with pytest.raises(PermissionError, match="write-protected"):
        write_atomically(tmp_path / "file", "new")


@pytest.mark.skipif(os.name == "nt", reason="there are no such links and permissions")
def test_links_and_permissions_stay(tmp_path):
    target, link = tmp_path / "a", tmp_path / "link"
    target.write_text("old")
    target.chmod(0o640)
    link.symlink_to(target)
    write_atomically(make_room_for(link), "new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    assert target.stat().st_mode & 0o777 == 0o640
