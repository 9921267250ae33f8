"""The page of a reproduction: the paper's table beside ours, which orderings hold, what differs; paper.md and .html."""

from collections.abc import Sequence
from dataclasses import dataclass

from harmofl.comparison.formats import markdown_row
from harmofl.comparison.paper_scores import PAPER_SCORES, RECALLED
from harmofl.comparison.paper_table import METRICS, MethodScores, Ordering, method_scores, orderings
from harmofl.comparison.reproduction import Reproduction
from harmofl.comparison.reproduction_notes import budget_notes, caution, notes_on_metric, setting_rows
from harmofl.comparison.reproduction_record import DownloadFacts
from harmofl.comparison.score_table import Comparison
from harmofl.report.page_files import write_page
from harmofl.report.scores import TextTable, metric_name, text_row
from harmofl.report.templates import template_of
from harmofl.utils.atomic_files import write_atomic

_CITATION = (
    'Jiang, Wang, Dou, "HarmoFL: Harmonizing Local and Global Drifts in Federated Learning on Heterogeneous Medical '
    'Images", AAAI 2022, arXiv:2112.10775'
)


@dataclass(frozen=True)
class PaperPage:
    """The contents of the page.

    Args:
        title: the title.
        summary: the outcome in sentences.
        scores: the paper's table beside ours.
        sites: a table of scores by site for each metric.
        orders: the paper's orderings.
        settings: the settings with a remark.
        notes: notes on metric, marks and differences to the paper's experiment.
        failed: a line for each failed run.
    """

    title: str
    summary: str
    scores: TextTable
    sites: Sequence[TextTable]
    orders: TextTable
    settings: TextTable
    notes: Sequence[str]
    failed: Sequence[str]

    @property
    def tables(self) -> list[TextTable]:
        """The tables in the order of the page."""
        return [self.scores, self.orders, *self.sites, self.settings]


def write_paper_page(options: Reproduction, comparison: Comparison, facts: DownloadFacts) -> PaperPage:
    """Write paper.md and paper.html into the folder of the reproduction.

    Raises:
        RunError: if the result of a run lacks a score.
        StorageError: if a file cannot be written.
    """
    page = paper_page(options, comparison, facts)
    write_atomic(options.out / "paper.md", page_markdown(page).encode())
    settings = page.settings
    text = template_of("paper.html").render(
        page=page,
        title=page.title,
        comparison="comparison/report.html",
        columns=(settings.corner, *settings.columns),
        settings=[(row.label, *(cell.text for cell in row.cells)) for row in settings.rows],
    )
    write_page(options.out / "paper.html", text, [])
    return page


def paper_page(options: Reproduction, comparison: Comparison, facts: DownloadFacts) -> PaperPage:
    """Return the contents of the page."""
    metrics = METRICS[options.task]
    methods = method_scores(comparison.outcomes, options.out / "comparison", metrics, PAPER_SCORES[options.task])
    orders = orderings(methods)
    experiment = options.experiment()
    notes = [
        *budget_notes(options, experiment, facts),
        *notes_on_metric(metrics, comparison.metric),
        f"Paper: {_CITATION}. {RECALLED}: recalled, not checked against the paper. Its scores at single sites are not "
        "recorded in this package.",
        *dict.fromkeys(remark for outcome in comparison.outcomes for remark in outcome.remarks),
    ]
    return PaperPage(
        f"{options.task}: the paper's table beside this reproduction",
        f"{caution(options, experiment, facts)}{_summary(orders, comparison)}",
        _scores(methods, metrics),
        [_at_sites(methods, metric) for metric in metrics],
        _orders(orders, metrics, comparison.metric),
        TextTable(
            "Settings with a remark",
            ("here", "remark"),
            tuple(text_row(key, (value, remark)) for key, value, remark in setting_rows(options, experiment)),
            "setting",
            0,
        ),
        notes,
        comparison.failed,
    )


def _scores(methods: Sequence[MethodScores], metrics: Sequence[str]) -> TextTable:
    columns = ["paper"]
    for metric in metrics:
        columns += [metric_name(metric), "std over seeds", "minus paper"]
    rows = [
        text_row(
            method.name,
            (
                "-" if method.paper is None else str(method.paper),
                *(
                    text
                    for metric in metrics
                    for text in (method.average(metric), method.seed_spread(metric), method.difference(metric))
                ),
            ),
        )
        for method in methods
    ]
    title = f"Test scores in percent: mean over sites (std over sites), {_seeds(methods)}"
    return TextTable(title, tuple(columns), tuple(rows), "method", 0)


def _seeds(methods: Sequence[MethodScores]) -> str:
    counts = sorted({len(method.outcome.seeds) for method in methods})
    count = "-".join(map(str, dict.fromkeys((counts[0], counts[-1]))))
    return f"mean over {count} seed{'s' * (count != '1')}"


def _at_sites(methods: Sequence[MethodScores], metric: str) -> TextTable:
    rows = tuple(text_row(method.name, method.at_sites(metric)) for method in methods)
    title = f"{metric_name(metric)} at every site in percent (std over seeds)"
    return TextTable(title, tuple(methods[0].outcome.sites), rows, "method", 0)


def _orders(orders: Sequence[Ordering], metrics: Sequence[str], judged: str) -> TextTable:
    columns = ("paper", *(f"here, {metric_name(metric)}" for metric in metrics), "95 % interval", "seeds", "verdict")
    rows = []
    for order in orders:
        found = order.found
        known = found is not None and found.low == found.low
        texts = (
            f"{order.gap:+.2f}{RECALLED * order.recalled}",
            *(order.text(metric) for metric in metrics),
            f"{100 * found.low:+.2f} to {100 * found.high:+.2f}" if found and known else "-",
            f"{found.better} of {found.seeds}" if found else "-",
            order.verdict,
        )
        rows.append(text_row(f"{order.ahead.name} ahead of {order.behind.name}", texts))
    title = f"The paper's orderings in percentage points; interval, seeds and verdict: {metric_name(judged)}"
    return TextTable(title, columns, tuple(rows), "ordering", 0)


def _summary(orders: Sequence[Ordering], comparison: Comparison) -> str:
    """Return sentences on how many orderings hold, and on HarmoFL and FedAvg."""
    if not orders:
        return "The methods here have no ordering in the paper: at least two of its methods must have finished runs."
    held = [order for order in orders if order.holds]
    clear = [order for order in held if order.found and order.found.clear]
    recalled = sum(order.recalled for order in orders)
    said = [f"Of {len(orders)} orderings of the paper, {len(held)} hold here, {len(clear)} of them clearly."]
    if recalled:
        said.append(f"{recalled} of the {len(orders)} rest on recalled figures.")
    for order in orders:
        if {order.ahead.paper_name, order.behind.paper_name} == {"HarmoFL", "FedAvg"} and order.found:
            here = f"{100 * order.found.mean:+.2f} here"
            said.append(f"{order.ahead.name} against {order.behind.name}: {order.gap:+.2f} in the paper, {here}.")
    said.append(comparison.chance)
    return " ".join(said)


def page_markdown(page: PaperPage) -> str:
    """Return the page as Markdown."""
    lines = [f"# {page.title}", "", page.summary, ""]
    for table in page.tables:
        header = [table.corner, *table.columns]
        rows = [markdown_row([row.label, *(cell.text for cell in row.cells)]) for row in table.rows]
        lines += [table.title, "", markdown_row(header), "|---" * len(header) + "|", *rows, ""]
    return "\n".join([*lines, *(f"- {note}" for note in (*page.notes, *page.failed)), ""])
