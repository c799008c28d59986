"""A process of its own: it gives results and errors back, and is never left behind."""

import os
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest

from skad.benchmark.process import in_a_process


def test_results_errors_and_crashes_come_back():
    assert in_a_process(os.getpid) != os.getpid()
    with pytest.raises(ValueError, match="invalid literal"):
        in_a_process(int, "x")
    with pytest.raises(BrokenProcessPool):
        in_a_process(os._exit, 7)


SCRIPT = """
import signal

signal.signal(signal.SIGINT, signal.default_int_handler)  # if it was ignored
import multiprocessing, os, sys, time
from pathlib import Path
from skad.benchmark.process import in_a_process

def wait(told, other):
    Path(told).write_text(f"{os.getpid()} {other}")
    time.sleep(300)

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    other = context.Process(target=time.sleep, args=(300,), daemon=True)
    other.start()
    try:
        in_a_process(wait, sys.argv[1], other.pid)
    except KeyboardInterrupt:
        print("other is running:", other.is_alive())
"""


def is_running(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_for(condition, seconds=60):
    """Return what a condition gives as soon as that is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
@pytest.mark.parametrize("stop", ["kill", "interrupt"])
def test_a_stop_ends_this_process_and_no_other(tmp_path, stop):
    script, told = tmp_path / "script.py", tmp_path / "pid"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(told)]
    with (tmp_path / "said").open("w") as said:  # a pipe would wait for the other
        parent = subprocess.Popen(command, stdout=said)
    worker, other = wait_for(lambda: told.exists() and told.read_text().split())
    parent.kill() if stop == "kill" else parent.send_signal(2)
    try:
        parent.wait(60)
        assert wait_for(lambda: not is_running(worker))
        if stop == "interrupt":
            assert (tmp_path / "said").read_text() == "other is running: True\n"
    finally:
        if is_running(other):
            os.kill(int(other), 9)
