import os

import pytest

from skad.common import files as _files
from skad.common.files import make_room_for, write_atomically
from skad.common.part_files import open_part


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_is_written_is_there_and_nothing_else(tmp_path):
    write_atomically(tmp_path / "a.bin", b"\x00\xff")
    write_atomically(tmp_path / "b.txt", "5 ± 1\n")
    assert (tmp_path / "a.bin").read_bytes() == b"\x00\xff"
    assert (tmp_path / "b.txt").read_text(encoding="utf-8") == "5 ± 1\n"
    assert names(tmp_path) == ["a.bin", "b.txt"]


def test_names_that_are_not_utf_8_are_written_as_they_are(tmp_path):
    write_atomically(tmp_path / "a.txt", b"\xff.png".decode(errors="surrogateescape"))
    assert (tmp_path / "a.txt").read_bytes() == b"\xff.png"


@pytest.mark.parametrize("name", ["a" * 255, "aä" * 85])
def test_a_name_may_be_as_long_as_the_disk_allows(tmp_path, name):
    write_atomically(tmp_path / name, "all of it")
    assert names(tmp_path) == [name]


def test_what_somebody_else_is_writing_stays(tmp_path, monkeypatch):
    target, fsync, seen = tmp_path / "a.txt", os.fsync, []

    def write_again(descriptor):
        seen.append(names(tmp_path))
        if len(seen) < 3:
            write_atomically(target, "other")
        fsync(descriptor)

    monkeypatch.setattr("os.fsync", write_again)
    write_atomically(target, "first")
    assert [len(found) for found in seen] == [1, 2, 3]
    assert target.read_text() == "first"
    assert names(tmp_path) == ["a.txt"]


def test_what_a_killed_program_was_writing_goes_and_other_files_stay(tmp_path):
    target = tmp_path / "a.txt"
    part, file = open_part(target)
    file.close()  # as the operating system does
    others = [tmp_path / ".b.txt-0123456789abcdef.part", tmp_path / "a.txt.part"]
    for other in others:
        other.write_text("mine")
    assert part.exists()
    write_atomically(target, "all of it")
    assert names(tmp_path) == sorted([target.name, *(other.name for other in others)])


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


def test_room_is_made_for_a_file_but_no_file(tmp_path):
    target = make_room_for(tmp_path / "new" / "deep" / "model.safetensors")
    assert target.parent.is_dir()
    assert names(target.parent) == []


def test_room_is_made_at_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert make_room_for("~/new/model") == tmp_path / "new" / "model"
    assert names(tmp_path) == ["new"]


def test_a_folder_in_place_of_the_file_is_named(tmp_path):
    with pytest.raises(IsADirectoryError, match=r"is a folder.*another place.*move"):
        make_room_for(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes in folders")
def test_a_pipe_is_named_and_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(FileExistsError, match=r"pipe is a device or a pipe.*another"):
        make_room_for(pipe)
    with pytest.raises(FileExistsError, match="It is a device or a pipe"):
        write_atomically(pipe, "text")
    assert pipe.is_fifo()


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match=r"file/model.* cannot be written: .*name a file"):
        make_room_for(tmp_path / "file" / "model")


def test_a_folder_without_permission_is_named(tmp_path, monkeypatch):
    def refuse(dir):
        raise PermissionError(13, "Permission denied", str(dir))

    monkeypatch.setattr(_files.tempfile, "TemporaryFile", refuse)
    with pytest.raises(PermissionError, match="cannot be written: Permission denied"):
        make_room_for(tmp_path / "model")


def test_a_link_stays_and_what_it_leads_to_is_written(tmp_path):
    (tmp_path / "there").mkdir()
    target = tmp_path / "there" / "model"
    target.write_text("old")
    link = tmp_path / "current"
    link.symlink_to(target)
    write_atomically(make_room_for(link), "new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    assert names(tmp_path / "there") == ["model"]


@pytest.mark.skipif(os.name == "nt", reason="there are no such permissions")
def test_permissions_stay(tmp_path):
    target = tmp_path / "a"
    target.write_text("old")
    target.chmod(0o640)
    write_atomically(target, "new")
    assert target.stat().st_mode & 0o777 == 0o640


def test_a_protected_file_is_not_replaced(tmp_path, monkeypatch):
    target = tmp_path / "a"
    target.write_text("old")
    monkeypatch.setattr("os.access", lambda path, mode: False)  # root may do all
    for write in (make_room_for, lambda path: write_atomically(path, "new")):
        with pytest.raises(PermissionError, match="write-protected"):
            write(target)
    assert target.read_text() == "old"
