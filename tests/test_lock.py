"""One process makes a file, others wait for it: also when it is killed, or fails."""

import subprocess
import sys
import time

import pytest

from edgeaccel.lock import locked

MAKE = """
import sys, time
from pathlib import Path
from edgeaccel.lock import locked

path, made = Path(sys.argv[1]), Path(sys.argv[2])
with locked(path):
    if not path.exists():
        with made.open("a") as file:
            file.write("x")
        print("held", flush=True)
        time.sleep(float(sys.argv[3]))
        path.write_text("whole")
print(path.read_text(), flush=True)
"""


def start(tmp_path, seconds):
    command = [sys.executable, "-c", MAKE, tmp_path / "file", tmp_path / "made", str(seconds)]
    return subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True)


def test_made_once(tmp_path):
    makers = [start(tmp_path, 0.3) for _ in range(6)]
    told = [maker.communicate(timeout=60)[0].split() for maker in makers]
    assert sorted(told) == [["held", "whole"], *[["whole"]] * 5]
    assert (tmp_path / "made").read_text() == "x"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "made"]


def test_holder_is_killed(tmp_path):
    """Whoever waits goes on at once, and makes it."""
    holder = start(tmp_path, 60)
    assert holder.stdout.readline() == "held\n"
    waiting = [start(tmp_path, 0) for _ in range(2)]
    time.sleep(0.5)
    assert [process.poll() for process in waiting] == [None, None]
    holder.kill()
    holder.communicate(timeout=60)
    assert sorted(process.communicate(timeout=60)[0].split() for process in waiting) == [["held", "whole"], ["whole"]]
    assert (tmp_path / "made").read_text() == "xx"


def test_started_programs_do_not_hold_it(tmp_path):
    """A compiler that outlives the process which started it keeps nobody waiting."""
    with locked(tmp_path / "file"):
        left = subprocess.Popen(["sleep", "60"], close_fds=False)
    try:
        maker = start(tmp_path, 0)
        assert maker.communicate(timeout=30)[0].split() == ["held", "whole"]
    finally:
        left.kill()
        left.wait()


def test_failure_gives_it_back(tmp_path):
    for _ in range(2):
        with pytest.raises(ValueError, match="no"), locked(tmp_path / "file"):
            raise ValueError("no")
    assert not list(tmp_path.iterdir())


def test_one_after_another(tmp_path):
    """Who waited holds the lock like who came first."""
    with locked(tmp_path / "file"):
        second = start(tmp_path, 1)
        time.sleep(1)
    assert second.stdout.readline() == "held\n"
    third = start(tmp_path, 0)
    assert third.communicate(timeout=60)[0].split() == ["whole"]
    assert second.communicate(timeout=60)[0].split() == ["whole"]
