"""The page that is served while a run trains."""

import json
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager

import pytest
from browser import needs_browser, opened
from run_folders import PAIR, round_line, write_result, write_run

from harmofl.errors import ConfigError
from harmofl.report.watch_server import Watched, server
from harmofl.utils.atomic_files import locked


@contextmanager
def served(folder, host="127.0.0.1"):
    with server(folder, host, 0) as serving:
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{serving.server_address[1]}/"
        finally:
            serving.shutdown()
            thread.join()


def get(url, **headers):
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
        return answer.headers, answer.read().decode()


def add_round(folder, number):
    with (folder / "rounds.jsonl").open("a") as file:
        file.write(round_line(number, PAIR, "dice", 0.8) + "\n")


def test_text_says_how_far_the_run_is(tmp_path):
    folder = tmp_path / "run"
    now = [time.time()]
    watched = Watched(folder, clock=lambda: now[0])
    assert watched.text() == f"waiting for a run in {folder}; none has begun there yet" and watched.stamp == ""
    write_run(folder, rounds=2, finished=False)
    assert watched.text() == f"not training: 2 of 5 rounds are done; continue with harmofl run --resume {folder}"
    with locked(folder, "training into"):
        assert watched.text().startswith("training: round 3 of 5, ends about ") and "in 6 s" in watched.text()
        now[0] += 180
        assert watched.text() == "training: round 3 of 5; no update for 3 min, although a round usually takes 2 s"
        for number in (3, 4, 5):
            add_round(folder, number)
        assert watched.text() == "all 5 rounds are done; the chosen model is being tested"
    write_result(folder, "harmofl", PAIR, "dice", 0.8)
    assert watched.text() == "finished: 5 rounds, model of round 4 chosen"


def test_page_and_status_change_with_the_run_and_nothing_else_is_served(tmp_path):
    folder = write_run(tmp_path / "run", rounds=1, finished=False)
    with served(folder) as url:
        headers, page = get(url)
        assert "harmofl has done 1 of 5 rounds" in page and "connect-src 'self'" in page
        assert headers["Cache-Control"] == "no-store" and headers["X-Content-Type-Options"] == "nosniff"
        before = json.loads(get(url + "status")[1])
        add_round(folder, 2)
        after = json.loads(get(url + "status")[1])
        assert before["stamp"] != after["stamp"] and not after["reload"]
        assert "harmofl has done 2 of 5 rounds" in get(url + "page")[1]
        for path in ("config.toml", "../run/config.toml", "page/../config.toml"):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                get(url + path)
        with pytest.raises(urllib.error.HTTPError, match="501"):
            urllib.request.urlopen(urllib.request.Request(url, data=b"x"))


def test_a_name_that_is_not_this_machine_gets_nothing(tmp_path):
    """A foreign page that has its own name point here must not read the run."""
    folder = write_run(tmp_path / "run", finished=False)
    with served(folder) as url, pytest.raises(urllib.error.HTTPError, match="403"):
        get(url, Host="evil.example")


def test_a_damaged_run_is_said_in_the_page(tmp_path):
    folder = write_run(tmp_path / "run", finished=False)
    (folder / "rounds.jsonl").write_text('{"round": "first"}\n')
    with served(folder) as url:
        assert "rounds.jsonl line 1 is not what training writes" in get(url)[1]


def test_a_port_in_use_is_one_line(tmp_path):
    with (
        served(tmp_path) as url,
        pytest.raises(ConfigError, match=r"must be free, but cannot be used .*choose another"),
    ):
        server(tmp_path, "127.0.0.1", int(url.rpartition(":")[2].strip("/")))


@needs_browser
def test_a_browser_sees_it_fill_without_losing_its_place(tmp_path):
    folder = tmp_path / "run"
    with served(folder) as url, opened(url) as seen:
        status = seen.page.locator("#status")
        assert "waiting for a run" in status.inner_text()
        write_run(folder, rounds=2, finished=False)
        seen.page.wait_for_selector('[data-chart="g0-validation"].drawn .live svg.marks')
        assert "not training: 2 of 5" in status.inner_text()
        # what must survive new numbers: the place, an opened part, the drawn chart itself
        seen.page.evaluate("window.kept = document.querySelector('[data-chart=\"g0-validation\"] .live svg')")
        seen.page.evaluate("document.querySelector('details').open = true; window.scrollTo(0, 300)")
        where = "window.kept.getBoundingClientRect().top"
        place = seen.page.evaluate(where)
        curve = "window.kept.querySelector('.mark-line path').getAttribute('d')"
        before = seen.page.evaluate(curve)
        with locked(folder, "training into"):
            add_round(folder, 3)
            seen.until(f"{curve} !== {json.dumps(before)}")
            assert "training: round 4 of 5, ends about" in status.inner_text()
        assert seen.page.evaluate("window.kept.isConnected && document.querySelector('details').open")
        assert abs(seen.page.evaluate(where) - place) < 3
        seen.shoot("watch", tmp_path)
        for number in (4, 5):
            add_round(folder, number)
        write_result(folder, "harmofl", PAIR, "dice", 0.8)
        seen.page.wait_for_selector('[data-chart="g0-scores"].drawn')
        assert "finished: 5 rounds" in status.inner_text()
        assert seen.complaints == [] and all(request.startswith(url) for request in seen.requests)


@needs_browser
def test_a_browser_says_so_when_nobody_answers_any_more(tmp_path):
    folder = write_run(tmp_path / "run", rounds=2, finished=False)
    with served(folder) as url:
        context = opened(url)
        seen = context.__enter__()
    try:
        seen.until("document.querySelector('#status').textContent.includes('does not answer')")
    finally:
        context.__exit__(None, None, None)
