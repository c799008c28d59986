"""Progress bars are seen where somebody looks, and stop nothing where nobody can."""

import io
import sys

import pytest

from skad._bars import bar, say
from skad._streams import Forgiving


class Broken(io.StringIO):
    """A terminal whose disk is full, or whose reader is gone."""

    def isatty(self):
        return True

    def write(self, text=""):
        raise OSError(28, "No space left on device")

    flush = write


def closed():
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("stream", [None, Broken(), closed()])
@pytest.mark.parametrize("on_terminals", [True, False])
def test_a_stream_that_cannot_be_written_stops_nothing(
    monkeypatch, stream, on_terminals
):
    monkeypatch.setattr(sys, "stderr", stream)
    with bar(range(3), shown=True, on_terminals=on_terminals, mininterval=0) as moving:
        assert list(moving) == [0, 1, 2]
        say("a line", above=moving)


def test_a_line_is_said_also_where_there_is_no_bar(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with bar(range(3), shown=True) as moving:  # no terminal, no bar
        say("a line", above=moving)
    assert stream.getvalue() == "a line\n"
    with bar(range(3), shown=False, on_terminals=False) as moving:
        list(moving)
    assert stream.getvalue() == "a line\n"
    with bar(range(3), shown=True, on_terminals=False) as moving:
        list(moving)
    assert "3/3" in stream.getvalue()


def test_what_a_stream_can_do_besides_is_there():
    assert Forgiving(io.StringIO("text")).read() == "text"
    assert not Forgiving(None).isatty()
