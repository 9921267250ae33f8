"""What the tests start instead of `python ...` is a process like it."""

import signal
import sys
import tempfile
from pathlib import Path

import forked
import pytest


def test_words_folder_environment_output_and_status(tmp_path: Path) -> None:
    code = "import os, sys; print(sys.argv, os.getcwd(), os.environ['X']); print('e', file=sys.stderr); sys.exit(3)"
    done = forked.run("-c", code, "a b", cwd=tmp_path, X="y")
    assert done.returncode == 3
    assert done.stdout == f"['-c', 'a b'] {tmp_path} y\n"
    assert done.stderr == "e\n"


def test_a_module_is_main() -> None:
    done = forked.run("-m", "harmofl", "run", "--rounds", "1")
    assert done.returncode == 2
    assert done.stderr.startswith("harmofl: data.folder is missing")


def test_an_error_is_told_as_python_does() -> None:
    done = forked.run("-c", "raise ValueError('no')")
    assert done.returncode == 1
    assert done.stderr.endswith("ValueError: no\n")
    assert "Traceback" in done.stderr


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_signals_are_as_at_a_start(sent: signal.Signals) -> None:
    code = "import time; print('on', flush=True); time.sleep(600)"
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = forked.start("-c", code, stdout=out, stderr=err)
        while not out.seek(0) and not out.read():
            assert process.poll() is None
        process.send_signal(sent)
        assert process.wait() == -sent
        err.seek(0)
        assert ("KeyboardInterrupt" in err.read()) == (sent == signal.SIGINT)


def test_it_is_a_copy_that_changes_no_other() -> None:
    code = "import sys, harmofl.experiment.run_dir as module; print(hasattr(module, 'changed'), 'torch' in sys.modules)"
    code += "; module.changed = 1"
    assert [forked.run("-c", code).stdout for _ in range(2)] == ["False True\n"] * 2
    assert not hasattr(sys.modules.get("harmofl.experiment.run_dir"), "changed")


def test_processes_of_its_own_may_be_started() -> None:
    code = "import multiprocessing as m; print(m.get_context('spawn').Pool(1).map(abs, [-1]))"
    assert forked.run("-c", code).stdout == "[1]\n"
