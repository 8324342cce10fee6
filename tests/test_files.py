"""Files that are whole or not there, and known to be what was written."""

import contextlib
import errno
import os
import resource

import pytest
import torch

from ddlib.store import files
from ddlib.store.files import read_about, read_seal, read_tensors, write_tensors
from ddlib.store.loop import Checkpoint


def test_json_and_tensors_come_back_as_they_were(tmp_path):
    content = {"b": [1, 2.5, None], "a": {"x": "ü"}, "t": (1, 2)}
    files.write_json(tmp_path / "f.json", content)
    assert files.read_json(tmp_path / "f.json") == content | {"t": [1, 2]}
    tensors = {
        "scalar": torch.tensor(3),
        "empty": torch.empty(0, dtype=torch.int64),
        "half": torch.randn(4, dtype=torch.bfloat16),
        "flags": torch.tensor([True, False]),
        "view": torch.arange(24.0).view(2, 3, 4).transpose(0, 2),
    }
    write_tensors(tmp_path / "f.safetensors", tensors, {"step": 3})
    read, about = read_tensors(tmp_path / "f.safetensors")
    assert about == {"step": 3}
    torch.testing.assert_close(read, tensors, rtol=0, atol=0)


def test_what_is_not_there_is_none_or_not_found(tmp_path):
    assert files.read_json(tmp_path / "f") is read_about(tmp_path / "f") is read_seal(tmp_path / "f") is None
    for read in (read_tensors, files.check, files.check_folder):
        with pytest.raises(FileNotFoundError):
            read(tmp_path / "f")


@pytest.fixture(params=["json", "tensors"])
def written(request, tmp_path):
    """A small file of either kind, and what reads it."""
    if request.param == "json":
        files.write_json(tmp_path / "f", {"loss": [[1, 0.5]], "n": 3})
        return tmp_path / "f", files.read_json
    write_tensors(tmp_path / "f", {"x": torch.arange(3)}, {"step": 1})
    return tmp_path / "f", read_tensors


def test_every_flipped_bit_is_seen(written):
    """Bit by bit; blanks alone may change where they mean nothing."""
    path, read = written
    content, expected = path.read_bytes(), str(read(path))
    for i in range(len(content)):
        path.write_bytes(content[:i] + bytes([content[i] ^ 1]) + content[i + 1 :])
        try:
            assert str(read(path)) == expected, f"byte {i}"
        except files.Damaged as error:
            assert error.path == path


@pytest.mark.parametrize("length", [0, 1, 8, 60, -1])
def test_a_truncated_file_is_seen_and_a_pickle_is_not_read(length, written):
    path, read = written
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(files.Damaged, match="f is (not whole|truncated)"):
        read(path)
    torch.save({"x": torch.zeros(1)}, path)
    with pytest.raises(files.Damaged, match="is (not whole|truncated or not a safetensors file)"):
        read(path)


def test_new_files_are_as_readable_as_the_umask_says(tmp_path):
    files.write_whole(tmp_path / "file", b"")
    write_tensors(tmp_path / "tensors", {"x": torch.zeros(2)})
    (tmp_path / "plain").touch()
    for name in ("file", "tensors"):
        assert (tmp_path / name).stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "folder" / "file"
    files.write_whole(path, b"first")
    with pytest.raises(KeyError), files.whole(path) as part:
        part.write_text("half")
        raise KeyError
    assert path.read_bytes() == b"first" and os.listdir(path.parent) == ["file"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_a_file_that_cannot_be_written_names_itself_and_stays(number, tmp_path, monkeypatch):
    path = files.write_whole(tmp_path / "file", b"first")

    def fail(_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    ends = "; what was there before is whole: free some space" if number == errno.ENOSPC else "$"
    with pytest.raises(OSError, match=rf"cannot write {path}: {os.strerror(number)}{ends}") as raised:
        files.write_whole(path, b"second")
    assert raised.value.errno == number
    assert path.read_bytes() == b"first" and os.listdir(tmp_path) == ["file"]


def test_a_file_that_cannot_be_opened_is_not_taken_for_missing_or_damaged(tmp_path):
    path = tmp_path / "f"
    write_tensors(path, {"x": torch.zeros(2)}, {"step": 3})
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    try:
        with contextlib.ExitStack() as opened:
            with pytest.raises(OSError, match="Too many open files"):
                while True:
                    opened.enter_context(path.open("rb"))
            for read in (lambda: read_tensors(path), lambda: read_about(path), Checkpoint(path).read):
                with pytest.raises(OSError, match="Too many open files"):
                    read()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert read_about(path) == {"step": 3} and read_seal(path) is not None


# --- folders -----------------------------------------------------------------------------------------------------


def folder_of(path, content=b"one"):
    """A folder with a file, and one in a folder of its own."""
    with files.whole_folder(path) as part:
        (part / "inner").mkdir(parents=True)
        (part / "a.bin").write_bytes(content)
        (part / "inner/b.bin").write_bytes(b"two")
    return path


def holds(path, content):
    """Whether the folder is whole, has this content, and lies alone."""
    files.check(path)
    return (path / "a.bin").read_bytes() == content and [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_folder_is_written_whole_and_replaced_whole_or_not_at_all(tmp_path):
    path = folder_of(tmp_path / "made/here")
    folder_of(path, b"three")
    assert holds(path, b"three")
    with pytest.raises(KeyError), files.whole_folder(path) as part:
        part.mkdir()
        (part / "a.bin").write_bytes(b"half")
        raise KeyError
    assert holds(path, b"three")
    with pytest.raises(OSError, match=f"cannot write {path / 'a.bin/g'}: (File exists|Not a directory)"):
        folder_of(path / "a.bin/g")


@pytest.mark.parametrize("failing", [1, 2])
def test_a_folder_that_cannot_take_its_name_leaves_what_was_there(failing, tmp_path, monkeypatch):
    path, rename, calls = folder_of(tmp_path / "f"), os.rename, []

    def once(source, target):
        calls.append(target)
        if len(calls) == failing:
            raise OSError(errno.EIO, "Input/output error")
        rename(source, target)

    monkeypatch.setattr(os, "rename", once)
    with pytest.raises(OSError, match=f"cannot write {path}: Input/output error"):
        folder_of(path, b"three")
    assert holds(path, b"one")


def test_what_a_folder_was_not_written_with_is_foreign(tmp_path):
    path = folder_of(tmp_path / "f")
    (path / "a.bin").write_bytes(b"changed")
    assert files.foreign(path) == []
    (path / "inner/mine.txt").touch()
    (path / "link").symlink_to(tmp_path)
    assert files.foreign(path) == ["inner/mine.txt", "link"]
    (path / files.MANIFEST).write_text('{"files": {"a.bin": "0"}, "name": "a web app"}')
    assert files.foreign(path) == ["a.bin", "inner/b.bin", "inner/mine.txt", "link", files.MANIFEST]
    (tmp_path / "new").mkdir()
    assert files.foreign(tmp_path / "new") == []


@pytest.mark.parametrize(
    ("harm", "match"),
    [
        (lambda path: (path / "a.bin").write_bytes(b"onf"), "is damaged: a.bin are not what was written"),
        (lambda path: (path / "inner/b.bin").unlink(), "is damaged: inner/b.bin are not"),
        (lambda path: (path / "inner/c.bin").touch(), "is damaged: inner/c.bin are not"),
        (lambda path: (path / files.MANIFEST).unlink(), "is damaged: it has no manifest.json"),
        (lambda path: (path / files.MANIFEST).write_bytes(b"{}"), "is damaged: .*manifest.json is damaged"),
    ],
)
def test_whatever_is_done_to_a_folder_is_seen(harm, match, tmp_path):
    path = folder_of(tmp_path / "f")
    harm(path)
    with pytest.raises(files.Damaged, match=f"{path} {match}") as error:
        files.check_folder(path)
    assert error.value.path == path
