"""Progress bars are seen where somebody looks, and stop nothing where nobody can."""

import io
import re
import subprocess
import sys
import warnings

import pytest

from skad.common.bars import bar, say
from skad.common.streams import Forgiving


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
@pytest.mark.parametrize("anywhere", [True, False])
def test_a_stream_that_cannot_be_written_stops_nothing(monkeypatch, stream, anywhere):
    monkeypatch.setattr(sys, "stderr", stream)
    with bar(range(3), shown=True, anywhere=anywhere, mininterval=0) as moving:
        assert list(moving) == [0, 1, 2]
        say("a line", above=moving)


def test_a_line_is_said_also_where_there_is_no_bar(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with bar(range(3), shown=True) as moving:  # no terminal, no bar
        say("a line", above=moving)
    assert stream.getvalue() == "a line\n"
    with bar(range(3), shown=False, anywhere=True) as moving:
        list(moving)
    assert stream.getvalue() == "a line\n"
    with bar(range(3), shown=True, anywhere=True) as moving:
        list(moving)
    assert "3/3" in stream.getvalue()


def test_what_a_stream_can_do_besides_is_there():
    assert Forgiving(io.StringIO("text")).read() == "text"
    assert not Forgiving(None).isatty()


def screen(written):
    """What is seen on a terminal, without empty lines."""
    lines, row, column = {}, 0, 0
    for part in re.findall(r"\r|\n|\x1b\[A|[^\r\n\x1b]+", written):
        if part == "\r":
            column = 0
        elif part == "\n":
            row, column = row + 1, 0
        elif part == "\x1b[A":
            row -= 1
        else:
            line = lines.get(row, "").ljust(column)
            lines[row] = line[:column] + part + line[column + len(part) :]
            column += len(part)
    return [lines[row].rstrip() for row in sorted(lines) if lines[row].strip()]


@pytest.mark.parametrize("shown", [0, 1, 2])
def test_warnings_go_above_bars(monkeypatch, shown):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, *rest: stream.write(f"{message}\n")
        before = warnings.showwarning
        with (
            bar(range(3), shown=shown > 0, anywhere=True, desc="outer") as outer,
            bar(range(3), shown=shown > 1, anywhere=True, desc="inner"),
        ):
            for _ in outer:
                warnings.warn("look out", stacklevel=1)
        assert warnings.showwarning is before
    seen = screen(stream.getvalue())
    assert seen[:3] == ["look out"] * 3
    outer_lines = [line[:12] for line in seen if line.startswith("outer")]
    assert outer_lines == ["outer: 100%|"] * (shown > 0)


def test_who_else_shows_warnings_is_asked_once_and_left_in_place(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    heard = []
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = before = lambda message, *rest: heard.append("before")
        with bar(total=1, shown=True, anywhere=True):
            above = warnings.showwarning
            warnings.showwarning = lambda *of: (heard.append("between"), above(*of))
            with bar(total=1, shown=True, anywhere=True):
                warnings.warn("look out", stacklevel=1)
            warnings.showwarning = above
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                with bar(total=1, shown=True, anywhere=True):
                    warnings.warn("look out", stacklevel=1)
        assert warnings.showwarning is before
    assert heard == ["between", "before"]
    assert len(caught) == 1


PTY = """
import os, pty, sys, fcntl, struct, termios
pid, fd = pty.fork()
if not pid:
    import time
    from skad.common.bars import bar
    time.sleep(0.3)
    with bar(range(3), shown=True, mininterval=0) as moving:
        list(moving)
    os._exit(0)
fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 24, int(sys.argv[1]), 0, 0))
said = b""
try:
    while part := os.read(fd, 10_000):
        said += part
except OSError:
    pass
sys.stdout.buffer.write(said)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
@pytest.mark.parametrize("width", [40, 120])
def test_a_bar_is_as_wide_as_the_terminal(width):
    command = [sys.executable, "-W", "ignore", "-c", PTY, str(width)]
    done = subprocess.run(command, check=True, capture_output=True)
    lines = done.stdout.decode().replace("\n", "\r").split("\r")
    assert max(map(len, lines)) in (width - 1, width)
