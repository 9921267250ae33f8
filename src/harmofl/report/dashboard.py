"""Live dashboard of a run in the terminal."""

import math
import sys
import time
from collections.abc import Callable, Sequence

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from harmofl.experiment.callbacks import Callback
from harmofl.experiment.round_record import RoundRecord
from harmofl.experiment.setup import Setup
from harmofl.report.console import print_plain
from harmofl.report.scores import estimated_end

BLOCKS = "▁▂▃▄▅▆▇█"
_FRAME = 9  # lines beside those of the sites


class Dashboard(Callback):
    """Rounds, loss and score of every site, and the estimated end; redrawn with every step of the run.

    Args:
        earlier: rounds of a run that is resumed.
        console: the terminal to draw on; the standard error stream if not given.
        clock: returns the seconds since the epoch.
    """

    def __init__(
        self,
        earlier: Sequence[RoundRecord] = (),
        console: Console | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.console = console or Console(file=sys.stderr)
        self._clock = clock
        self._title, self._metric, self._reading = "", "", "opening the images"
        self._rounds, self._first, self._done, self._drawn = 0, 1, 0, 0
        self._began = self._latest = clock()
        self._remarks: list[str] = []
        self._records = list(earlier)
        self._sites: list[str] = []
        self._finished_now: set[str] = set()
        self._live = Live(self.view(), console=self.console, refresh_per_second=2, transient=False)

    def __enter__(self) -> "Dashboard":
        self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._live.update(self.view(), refresh=True)
        self._live.stop()

    def on_load(self, site: str, done: int, total: int) -> None:
        """Show the site that is being read."""
        self._reading = f"reading {site}: {done} of {total} images"
        self._show()

    def on_message(self, line: str) -> None:
        """Print a line above the dashboard."""
        print_plain(self._live.console, line)

    def on_train_begin(self, setup: Setup, first_round: int) -> None:
        """Show the run before its first round."""
        experiment = setup.experiment
        self._rounds, self._first, self._done = experiment.training.rounds, first_round, first_round - 1
        self._drawn, self._metric = len(setup.drawn(1)), setup.metric
        self._sites = [site.name for site in setup.federation.sites]
        self._title = f"{experiment.method_name} \N{MIDDLE DOT} {experiment.run.name}"
        self._remarks, self._reading, self._began = setup.remarks(), "", self._clock()
        self._records = [record for record in self._records if record.round < first_round]
        self._show()

    def on_client_end(self, site: str) -> None:
        """Mark the site as finished in this round."""
        self._finished_now.add(site)
        self._show()

    def on_round_end(self, record: RoundRecord) -> None:
        """Show the round's numbers."""
        self._records.append(record)
        self._done, self._latest = record.round, self._clock()
        self._finished_now.clear()
        self._show()

    def _show(self) -> None:
        self._live.update(self.view())

    def view(self) -> RenderableType:
        """Return the content of the dashboard."""
        if self._reading:
            return Text(self._reading)
        parts: list[RenderableType] = [Text(self._title, style="bold"), self._bar(), Text(self._when())]
        parts += [self._table(), Text(self._score()), Text(self._cost(), style="dim")]
        return Group(*parts, *(Text(f"warning: {line}", style="yellow") for line in self._remarks))

    def _bar(self) -> RenderableType:
        now = len(self._finished_now) / max(1, self._drawn)
        return Padding(ProgressBar(self._rounds, min(self._rounds, self._done + min(now, 0.99))), 0)

    def _when(self) -> str:
        """Return the current round and the estimated end of the run."""
        if self._done >= self._rounds:
            return f"round {self._done} of {self._rounds}: done, testing the chosen model"
        left = self._rounds - self._done
        said = f"round {self._done + 1} of {self._rounds}"
        if self._done < self._first:
            return f"{said}; the end can be estimated after it"
        pace = (self._latest - self._began) / (self._done - self._first + 1)
        remaining = max(0.0, pace * left - (self._clock() - self._latest))
        return f"{said}; ends {estimated_end(self._clock(), remaining)}"

    def _table(self) -> RenderableType:
        wide = self.console.width >= 70
        table = Table(box=None, pad_edge=False, header_style="dim")
        for name in ["", "site", "loss", self._metric, *(["over the rounds", "best", "rounds"] if wide else [])]:
            table.add_column(name, justify="left" if name in ("", "site", "over the rounds") else "right", no_wrap=True)
        order = self._order()
        room = max(3, self.console.height - _FRAME - len(self._remarks))
        shown = order if len(order) <= room else order[: room - 1]
        for site in shown:
            scores = self._scores(site)
            losses = [record.train_loss[site] for record in self._records if site in record.train_loss]
            row = ["\N{BULLET}" if site in self._finished_now else " ", site, _number(losses), _number(scores)]
            extra = [
                sparkline(scores, 24),
                _number([max(scores, default=math.nan)]),
                f"{len(losses)}/{len(self._records)}",
            ]
            table.add_row(*(Text(cell) for cell in [*row, *(extra if wide else [])]))
        if len(shown) < len(order):
            better = ", all better" if all(map(self._scores, order)) else ""
            table.add_row("", Text(f"and {len(order) - len(shown)} more{better}", style="dim"))
        return table

    def _order(self) -> list[str]:
        """Return the sites in their order or, if there are more than fit, from the worst score up."""
        if len(self._sites) <= self.console.height - _FRAME - len(self._remarks):
            return self._sites
        last = {site: (self._scores(site) or [math.inf])[-1] for site in self._sites}
        return sorted(self._sites, key=lambda site: last[site])

    def _scores(self, site: str) -> list[float]:
        found = [record.val[site][self._metric] for record in self._records if record.val and site in record.val]
        return [score for score in found if math.isfinite(score)]

    def _score(self) -> str:
        summary = next((found for record in reversed(self._records) if (found := record.summary(self._metric))), None)
        if not summary:
            return "not validated yet"
        best = [record.round for record in self._records if record.best]
        chosen = f"; best round so far {best[-1]}" if best else ""
        return f"validation {self._metric} {summary.mean:.3f}, worst {summary.worst:.3f} ({summary.worst_site}){chosen}"

    def _cost(self) -> str:
        if not self._records:
            return ""
        last = self._records[-1]
        return f"last round {last.seconds:.1f} s, {last.bytes_up / 1e6:.1f} MB up, {last.bytes_down / 1e6:.1f} MB down"


def sparkline(values: list[float], width: int) -> str:
    """Return the last `width` values as block characters, scaled from their minimum to their maximum."""
    shown = values[-width:]
    if not shown:
        return ""
    low, high = min(shown), max(shown)
    steps = len(BLOCKS) - 1
    return "".join(BLOCKS[round(steps * (v - low) / (high - low)) if high > low else steps // 2] for v in shown)


def _number(values: Sequence[float]) -> str:
    last = values[-1] if values else math.nan
    return f"{last:.3f}" if math.isfinite(last) else "-"
