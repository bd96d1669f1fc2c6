import os

import pytest

from rootflow import _atomic
from rootflow.errors import InputError


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_written_whole_and_replaced_whole(tmp_path):
    target = tmp_path / "a.txt"
    _atomic.write_text(target, "αβγ\n")
    assert target.read_bytes() == "αβγ\n".encode()
    _atomic.write_bytes(target, b"second")
    assert target.read_bytes() == b"second"
    assert names(tmp_path) == ["a.txt"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    target = tmp_path / "a.txt"
    _atomic.write_text(target, "old")

    def no_space(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", no_space)
    with pytest.raises(OSError, match="No space"):
        _atomic.write_text(target, "new")
    assert target.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_new_file_gets_the_usual_permissions(tmp_path):
    plain, ours = tmp_path / "plain", tmp_path / "ours"
    plain.write_text("")
    _atomic.write_text(ours, "")
    assert ours.stat().st_mode == plain.stat().st_mode


def test_a_link_stays_a_link(tmp_path):
    real, link = tmp_path / "real", tmp_path / "link"
    real.write_text("old")
    link.symlink_to(real)
    _atomic.write_text(link, "new")
    assert link.is_symlink() and real.read_text() == "new"


def test_a_folder_appears_when_it_is_complete(tmp_path):
    target = tmp_path / "deep" / "er" / "out"
    with _atomic.folder(target) as draft:
        (draft / "sub").mkdir()
        (draft / "sub" / "a").write_text("1")
        assert not target.exists()
    assert (target / "sub" / "a").read_text() == "1"
    assert names(target.parent) == ["out"]


def test_a_folder_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), _atomic.folder(tmp_path / "deep" / "out") as draft:
        (draft / "a").write_text("1")
        _ = 1 / 0
    assert names(tmp_path) == []


def test_an_existing_folder_keeps_its_other_files(tmp_path):
    target = tmp_path / "out"
    target.mkdir()
    (target / "mine").write_text("keep")
    (target / "a").write_text("old")
    with pytest.raises(ZeroDivisionError), _atomic.folder(target) as draft:
        (draft / "a").write_text("never")
        _ = 1 / 0
    assert (target / "a").read_text() == "old"
    with _atomic.folder(target) as draft:
        (draft / "a").write_text("new")
        (draft / "sub").mkdir()
        (draft / "sub" / "b").write_text("2")
    assert names(target) == ["a", "mine", "sub"]
    assert (target / "a").read_text() == "new" and (target / "mine").read_text() == "keep"
    assert names(tmp_path) == ["out"]


def test_a_file_in_the_way_is_refused_before_any_work(tmp_path):
    (tmp_path / "file").write_text("x")
    for target in (tmp_path / "file", tmp_path / "file" / "out"):
        with pytest.raises(InputError, match="is a file"):
            _atomic.folder(target)
    assert names(tmp_path) == ["file"]
