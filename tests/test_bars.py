"""Progress bars are shown where somebody looks, and stop nothing where nobody can."""

import io
import sys
import warnings

import pytest

from skad.common.bars import bar, say


class Broken(io.StringIO):
    """A terminal whose reader is gone."""

    def isatty(self):
        return True

    def write(self, text=""):
        raise BrokenPipeError(32, "Broken pipe")

    flush = write


@pytest.mark.parametrize("stream", [None, Broken()])
def test_a_stream_that_cannot_be_written_stops_nothing(monkeypatch, stream):
    monkeypatch.setattr(sys, "stderr", stream)
    with bar(range(3), shown=True, anywhere=True, mininterval=0) as moving:
        assert list(moving) == [0, 1, 2]
        say("a line", above=moving)


@pytest.mark.parametrize(
    ("shown", "anywhere"), [(True, False), (False, True), (True, True)]
)
def test_a_bar_is_shown_on_terminals_or_anywhere(monkeypatch, shown, anywhere):
    stream = io.StringIO()  # no terminal
    monkeypatch.setattr(sys, "stderr", stream)
    with bar(range(3), shown=shown, anywhere=anywhere) as moving:
        list(moving)
        say("a line", above=moving)
    assert "a line\n" in stream.getvalue()
    assert ("3/3" in stream.getvalue()) == (shown and anywhere)


def test_without_tqdm_there_is_no_bar(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with bar(range(3), shown=True, anywhere=True) as moving:
        assert list(moving) == [0, 1, 2]
        moving.update()
        say("a line", above=moving)
    assert capsys.readouterr().err == "a line\n"


def test_warnings_go_above_bars(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = before = lambda message, *_: print(message, file=stream)
        with bar(range(3), shown=True, anywhere=True, mininterval=0) as moving:
            for _ in moving:
                warnings.warn("look out", stacklevel=1)
        assert warnings.showwarning is before
    lines = [line.split("\r")[-1] for line in stream.getvalue().split("\n")]
    assert lines[:3] == ["look out"] * 3
    assert "3/3" in lines[3]
