"""What a terminal shows of a run: names stay as they are, also those that rich would take for colours."""

import io

from rich.console import Console

from harmofl.cli import options
from harmofl.experiment.round_record import RoundRecord
from harmofl.report.console import Terminal, result_table

NAME = "x [red] [/] [b]y[/b]"


def console(terminal=True):
    return Console(file=io.StringIO(), width=200, force_terminal=terminal, color_system=None)


def written(to):
    return to.file.getvalue()


def of_round(number):
    val = {NAME: {"dice": 0.5}}
    return RoundRecord(number, 1.0, {NAME: 0.1}, 0, 0, 0, 0, val, best=True)


def test_a_site_of_any_name_in_the_line_and_the_bar_of_a_round():
    for terminal in (False, True):
        to = console(terminal)
        shown = Terminal(to)
        shown._metric, shown._rounds = "dice", 10
        with shown:
            shown.on_load(NAME, 1, 2)
            shown._progress.refresh()
            assert (NAME in written(to)) == terminal
            shown.on_round_end(of_round(1))
        assert f"validation dice 0.500, worst 0.500 ({NAME})" in written(to)


def test_a_site_of_any_name_in_the_table_of_scores():
    result = {
        **{"main_metric": "dice", "method": NAME, "test": {NAME: {"dice": 0.5}}, "unseen": {NAME: {"dice": 0.25}}},
        **{"summary": {"mean": 0.5, "worst": 0.5, "std": 0.0}},
        **{"chosen_round": 1, "rounds": 1, "seconds_per_round": 1.0},
    }
    to = console()
    to.print(result_table([result]))
    assert written(to).count(NAME) == 3


def test_a_site_of_any_name_beside_a_bar(monkeypatch):
    to = console()
    monkeypatch.setattr(options, "Console", lambda **how: to)
    with options.bar("reading") as progress:
        progress(NAME, 1, 2)
    assert f"reading {NAME}" in written(to)
