"""Reproductions of the paper's experiments on small downloads of the published layouts, from data to page."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from browser import SIZES, needs_browser, opened
from click.testing import Result
from data import published_trees as trees
from typer.testing import CliRunner

from harmofl.cli.main import app
from harmofl.comparison import reproduction_plan
from harmofl.comparison.outcomes import Cost, Outcome
from harmofl.comparison.paper_scores import PAPER_SCORES, PaperScore
from harmofl.comparison.paper_table import MethodScores, orderings
from harmofl.comparison.reproduction import METHODS, Reproduction, study_of
from harmofl.comparison.reproduction_plan import MethodPlan, WorkPlan, plan_lines, plan_work, split_line
from harmofl.comparison.variants import Variant
from harmofl.errors import HarmoFLError
from harmofl.evaluation.confidence_intervals import Cases
from harmofl.experiment.config import load_experiment
from harmofl.experiment.cost_estimate import Forecast
from harmofl.experiment.paper_settings import TASKS, paper_config, setting_remarks

ROOT = Path(__file__).parents[2]
SMALL = ("--rounds", 1, "--seeds", 1, "--budget", 1, "--workers", 1, "--set", "data.size=[32,32]")
UNET = ("--set", "network.options.features=2")
DENSENET = ("growth=4", "blocks=[1,1]", "initial=8")
CASES = {
    "prostate": ("--methods", "fedavg,harmofl", *UNET),
    "nuclei": ("--methods", "fedavg,fedprox,harmofl-released", "--as", "released", *UNET),
    "camelyon17": (
        *("--methods", "fedavg,fedbn,harmofl", "--partial"),
        *(word for option in DENSENET for word in ("--set", f"network.options.{option}")),
    ),
}


def harmofl(*words: object) -> Result:
    return CliRunner().invoke(app, [*map(str, words)])


def refused(*words: object) -> str:
    """The one line of a user's error, which is raised before anything is trained."""
    error = harmofl(*words).exception
    assert isinstance(error, HarmoFLError), error
    assert error.exit_code == 2 and "\n" not in str(error)
    return str(error)


def download(task: str, folder: Path) -> Path:
    if task == "nuclei":
        for part in (trees.monusac, trees.monuseg, trees.tnbc):
            part(folder / part.__name__)
    elif task == "prostate":
        trees.prostate(folder, trees.WHOLE_PROSTATE)
    else:
        trees.camelyon17(folder)
    return folder


def command(task: str, folder: Path) -> list[object]:
    return ["reproduce", task, "--from", folder / "in", "--out", folder / "out", *CASES[task], *SMALL]


@pytest.fixture(scope="module", params=TASKS)
def done(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Result]:
    """The task, the folder of download and output, and what was printed."""
    task: str = request.param
    folder = tmp_path_factory.mktemp(task)
    (folder / "in").mkdir()
    download(task, folder / "in")
    result = harmofl(*command(task, folder))
    assert result.exit_code == 0, result.output
    return task, folder, result


@pytest.fixture(scope="module")
def prostate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A planned and then trained reproduction of the prostate experiment."""
    folder = tmp_path_factory.mktemp("resumed")
    (folder / "in").mkdir()
    download("prostate", folder / "in")
    planned = harmofl(*command("prostate", folder), "--plan-only")
    assert planned.exit_code == 0, planned.output
    assert not (folder / "out" / "comparison").exists() and not (folder / "out" / "paper.md").exists()
    made = (folder / "out" / "data" / "federation.toml").stat().st_mtime_ns
    assert harmofl(*command("prostate", folder)).exit_code == 0
    assert (folder / "out" / "data" / "federation.toml").stat().st_mtime_ns == made  # prepared once
    return folder


def markdown_rows(text: str, title: str) -> dict[str, list[str]]:
    """The cells of a table of paper.md by the first one."""
    lines = text.partition(title)[2].split("\n\n")[1].splitlines()[2:]
    return {cells[0]: cells[1:] for line in lines for cells in [line.strip("| ").split(" | ")]}


def test_the_table_has_the_papers_figures_and_ours(done: tuple[str, Path, Result]) -> None:
    task, folder, _ = done
    rows = markdown_rows((folder / "out" / "paper.md").read_text(), "Test scores in percent")
    metrics = ("accuracy",) if task == "camelyon17" else ("dice", "slice_dice_released")
    names = {"fedavg": "FedAvg", "fedprox": "FedProx", "fedbn": "FedBN", "harmofl": "HarmoFL as published"}
    for label in CASES[task][1].split(","):
        test = json.loads((folder / "out" / "comparison" / label / "seed-0" / "result.json").read_text())["test"]
        cells = rows[names.get(label, "HarmoFL as released")]
        paper = PAPER_SCORES[task][names.get(label, "HarmoFL").split()[0]]
        assert cells[0] == str(paper)
        assert ("\N{DAGGER}" in cells[0]) == paper.recalled
        for index, metric in enumerate(metrics):
            sites = 100 * np.array([scores[metric] for scores in test.values()])
            assert cells[1 + 3 * index] == f"{sites.mean():.2f} ({sites.std(ddof=1):.2f})"
            assert cells[2 + 3 * index] == "-"
            assert cells[3 + 3 * index] == f"{sites.mean() - paper.mean:+.2f}"


def test_the_page_says_what_differs_from_the_paper(done: tuple[str, Path, Result]) -> None:
    task, folder, result = done
    text = (folder / "out" / "paper.md").read_text()
    differ = "rounds, settings, data" if task == "camelyon17" else "rounds, settings"
    assert f"A try, not the paper's experiment: its {differ} differ, see the notes. Of " in text
    rounds = {"camelyon17": 100}.get(task, 500)
    assert f"The budget is not the paper's: training.rounds is 1 instead of {rounds}" in text
    assert "data.size=[32, 32]" in text
    assert ("The data is not the complete download: count: hospital_0 has 20" in text) == (task == "camelyon17")
    settings = markdown_rows(text, "Settings with a remark")
    assert ("recalled" in settings.get("training.lr", ["", ""])[1]) == (task == "nuclei")
    here, remark = settings["training.rounds"]
    assert here == "1" and ("500 in the file" in remark) == (task == "nuclei")
    assert ("which hospitals its sites A to D are" in text) == (task == "nuclei")
    page = (folder / "out" / "paper.html").read_text()
    assert all(name in page for name in markdown_rows(text, "Test scores in percent"))
    assert (folder / "out" / "comparison" / "report.html").stat().st_size > 100_000
    assert "equals fedavg" in text if task == "camelyon17" else "Slice Dice (as released) is the metric" in text
    assert str(folder / "out" / "paper.html") in result.stdout


def test_the_plan_comes_first(done: tuple[str, Path, Result]) -> None:
    task, _, result = done
    lines = result.stdout.splitlines()
    found = {"camelyon17": "hospital_4 20 of 146,722; 5 things differ", "nuclei": "F 50 of 50; complete"}
    assert lines[0].startswith("data    ") and found.get(task, "UCL 13 of 13; complete") in lines[0]
    for label in CASES[task][1].split(","):
        assert any(re.match(rf"time    {label}: \d+ s for 1 run, .* 1 round", line) for line in lines), lines
    for first in ("files   ", "device  cpu", "time    in all ", "memory  ", "disk    "):
        assert any(line.startswith(first) for line in lines), first


def test_sites_are_those_of_the_published_data(done: tuple[str, Path, Result]) -> None:
    task, folder, _ = done
    header = (folder / "out" / "paper.md").read_text().partition("at every site in percent")[2].split("\n")[2]
    sites = {"nuclei": "A B C D E F", "prostate": "BIDMC BMC HK I2CVB RUNMC UCL"}
    expected = sites.get(task, " ".join(f"hospital_{k}" for k in range(5)))
    assert header == f"| method | {' | '.join(expected.split())} |"


def test_the_orderings_have_the_sign_of_the_scores(done: tuple[str, Path, Result]) -> None:
    task, folder, _ = done
    text = (folder / "out" / "paper.md").read_text()
    main = {name: float(cells[1].split()[0]) for name, cells in markdown_rows(text, "Test scores in percent").items()}
    orders = markdown_rows(text, "The paper's orderings")
    assert len(orders) == {"prostate": 1, "nuclei": 2, "camelyon17": 3}[task]
    judged = 2 if task == "nuclei" else 1  # as released, the released metric chooses the round and is judged
    for name, cells in orders.items():
        ahead, behind = name.split(" ahead of ")
        assert float(cells[1]) == pytest.approx(main[ahead] - main[behind], abs=0.011)
        verdict = "equal here" if float(cells[judged]) == 0 else "holds" if float(cells[judged]) > 0 else "does not"
        assert cells[-1].startswith(verdict), (name, cells)
    held = sum(cells[-1].startswith("holds") for cells in orders.values())
    assert f"Of {len(orders)} orderings of the paper, {held} hold here, 0 of them clearly." in text


def test_the_same_again_trains_nothing_and_a_method_more_only_that(prostate: Path) -> None:
    out = prostate / "out"
    page, result = (out / "paper.md").read_text(), out / "comparison" / "fedavg" / "seed-0" / "result.json"
    before = result.stat().st_mtime_ns
    again = harmofl(*command("prostate", prostate))
    assert again.exit_code == 0 and "all runs are finished" in again.stdout
    assert (out / "paper.md").read_text() == page and result.stat().st_mtime_ns == before
    words = ["fedavg,harmofl,moon" if word == "fedavg,harmofl" else word for word in command("prostate", prostate)]
    more = harmofl(*words)
    assert more.exit_code == 0, more.output
    assert "time    moon: " in more.stdout and "time    fedavg: " not in more.stdout
    assert result.stat().st_mtime_ns == before
    assert "MOON" in markdown_rows((out / "paper.md").read_text(), "Test scores in percent")


def test_a_run_that_was_cut_short_goes_on(prostate: Path) -> None:
    out = prostate / "out"
    assert harmofl(*command("prostate", prostate)).exit_code == 0
    page, run = (out / "paper.md").read_text(), out / "comparison" / "harmofl" / "seed-0"
    (run / "result.json").unlink()
    (out / "paper.md").unlink()
    again = harmofl(*command("prostate", prostate))
    assert again.exit_code == 0, again.output
    assert "time    harmofl: " in again.stdout and "time    fedavg: " not in again.stdout
    assert (out / "paper.md").read_text() == page


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (["--rounds", 2], "--rounds was 1 and is now 2"),
        (["--as", "released"], "--as was paper and is now released"),
        (["--partial"], "--partial was not given and is now given"),
        (["--set", "data.size=[48,48]"], "--set data.size was [32, 32] and is now [48, 48]"),
        (["--set", "training.lr=0.1"], "--set training.lr was not given and is now 0.1"),
    ],
)
def test_a_changed_option_is_named(prostate: Path, change: list[object], said: str) -> None:
    message = refused(*command("prostate", prostate), *change)
    assert said in message and "choose another --out" in message


def test_another_task_or_download_in_the_same_folder_is_refused(prostate: Path, tmp_path: Path) -> None:
    words = command("prostate", prostate)
    assert "the task was prostate and is now nuclei" in refused("reproduce", "nuclei", *words[2:])
    words[3] = tmp_path
    assert f"--from was {prostate / 'in'} and is now {tmp_path}" in refused(*words)
    record = prostate / "out" / "reproduce.json"
    text = record.read_text()
    record.write_text("{")
    assert "must hold the record of the reproduction" in refused(*command("prostate", prostate))
    record.write_text(text)


def test_errors_come_before_any_file(tmp_path: Path) -> None:
    out, empty = tmp_path / "out", tmp_path / "empty"
    empty.mkdir()
    begin = ("reproduce", "prostate", "--from", empty, "--out", out)
    assert "the task must be one of nuclei, camelyon17, prostate, got 'fundus'" in refused(
        "reproduce", "fundus", *begin[2:]
    )
    assert "--as must be paper or released" in refused(*begin, "--as", "code")
    assert "no files of the six-site prostate MRI of SAML found" in refused(*begin)
    assert "check the path" in refused("reproduce", "prostate", "--from", tmp_path / "nowhere", "--out", out)
    assert "training.rounds" in refused(*begin, "--rounds", 0)
    assert "method must be one of" in refused(*begin, "--methods", "fedex")
    assert "--set data.folder: is set by the options" in refused(*begin, "--set", "data.folder=x")
    assert "unknown key 'training.rate'" in refused(*begin, "--set", "training.rate=1")
    assert "a method must have this hyperparameter" in refused(*begin, "--methods", "fedavg", "--set", "method.mu=1")
    trees.prostate(empty, {"HK": range(38, 44)})
    message = refused(*begin)
    assert "must be a complete download" in message and "--partial" in message
    assert "BIDMC has 0 volumes" in message
    assert not out.exists()


def test_options_may_change_until_data_is_there(tmp_path: Path) -> None:
    """A first try without --partial binds nothing."""
    trees.prostate(tmp_path / "in", {"HK": range(38, 44), "UCL": range(26, 32)})
    begin = command("prostate", tmp_path)
    refused(*begin)
    partial = harmofl(*begin, "--partial", "--plan-only")
    assert partial.exit_code == 0, partial.output
    assert "HK 6 of 12" in partial.stdout and "UCL 6 of 13" in partial.stdout


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("version", ["paper", "released"])
def test_runs_have_the_settings_of_the_papers_experiment(task: str, version: str, tmp_path: Path) -> None:
    """HarmoFL in each version is the experiment of its file; the other methods have its weighting."""
    options = Reproduction(task, tmp_path, tmp_path / "out", version)
    jobs = {job.variant.label: job.experiment for job in study_of(replace(options, seeds=1)).jobs()}
    assert ",".join(jobs) == METHODS
    for label, file in (("harmofl", "paper"), ("harmofl-released", "released")):
        assert jobs[label].method == load_experiment(paper_config(task, file), {}).method
    expected = load_experiment(paper_config(task, version), {})
    for experiment in jobs.values():
        for table in ("training", "network", "evaluation"):
            assert getattr(experiment, table) == getattr(expected, table)
        assert experiment.data.folder == tmp_path / "out" / "data"
        assert experiment.run.device == "auto"


def test_the_settings_are_part_of_the_package() -> None:
    assert (ROOT / "configs" / "paper").resolve() == paper_config("nuclei", "paper").parent
    assert '"experiment/paper/*.toml"' in (ROOT / "pyproject.toml").read_text()


def test_recalled_settings_are_those_that_say_so() -> None:
    recalled = {task: [r.key for r in setting_remarks(paper_config(task, "paper")) if r.recalled] for task in TASKS}
    lines = ["training.rounds", "training.lr", "training.loss"]
    assert recalled == {"nuclei": lines, "camelyon17": [], "prostate": []}
    source = next(r for r in setting_remarks(paper_config("camelyon17", "released")) if "images_per_site" in r.key)
    assert (source.key, source.value) == ("data.images_per_site", '"smallest"')


def test_the_papers_figures_are_those_of_the_documentation() -> None:
    text = " ".join((ROOT / "docs" / "versions.md").read_text().split())
    for task, name in (("camelyon17", "Camelyon17"), ("nuclei", "nuclei"), ("prostate", "prostate")):
        scores = PAPER_SCORES[task]
        assert re.search(rf"{scores['HarmoFL'].mean:.2f} against {scores['FedAvg'].mean:.2f} on {name}", text)


def scored(method: str, paper: PaperScore | None, by_seed: list[list[float]]) -> MethodScores:
    """A method with test scores (seeds, sites), each of one case."""
    test = np.array(by_seed)
    cases = {site: Cases(test[:, [k]], np.array([""]), np.arange(1)) for k, site in enumerate("ab")}
    cost = Cost(1.0, 1.0, 0.0, 0.0, 1.0, 1)
    outcome = Outcome(Variant(method, method), (0, 1, 2), ("a", "b"), test, test.mean(axis=1), cases, cost, ())
    return MethodScores(outcome, paper, {"dice": 100 * test})


def test_orderings_by_hand() -> None:
    """Means: fedavg .60, harmofl .70, fedprox .60, fedbn .50, so HarmoFL and FedProx end as the figures say.

    FedBN is ahead of FedAvg in these figures by 5 and behind here by 10; fedsam is in no table, and FedProx, whose
    figure equals that of FedAvg, has no order with it.
    """
    methods = [
        scored("fedavg", PaperScore(70.0), [[0.5, 0.7]] * 3),
        scored("fedprox", PaperScore(70.0, recalled=True), [[0.5, 0.7]] * 3),
        scored("fedbn", PaperScore(75.0), [[0.4, 0.6]] * 3),
        scored("harmofl", PaperScore(80.0), [[0.6, 0.8]] * 3),
        scored("fedsam", None, [[0.6, 0.8]] * 3),
    ]
    found = {(order.ahead.label, order.behind.label): order for order in orderings(methods)}
    assert list(found) == [("fedbn", "fedavg"), ("harmofl", "fedavg"), ("harmofl", "fedprox"), ("harmofl", "fedbn")]
    assert [order.gap for order in found.values()] == [5, 10, 10, 5]
    assert [order.holds for order in found.values()] == [False, True, True, True]
    assert [order.recalled for order in found.values()] == [False, False, True, False]
    assert found["fedbn", "fedavg"].text("dice") == "-10.00"
    assert found["fedbn", "fedavg"].verdict.startswith("does not hold")
    assert methods[0].average("dice") == f"60.00 ({100 * math.sqrt(0.02):.2f})"
    assert methods[0].seed_spread("dice") == "0.00"
    assert methods[3].difference("dice") == "-10.00" and methods[4].difference("dice") == "-"
    assert methods[0].at_sites("dice") == ["50.00 (0.00)", "70.00 (0.00)"]


FORECAST = Forecast(
    **{"sites": 2, "drawn": 2, "rounds": 100, "steps": 3, "validated": 8, "short": False, "share": 1.0},
    **{"start": 10.0, "training": 8.0, "validation": 1.0, "rest": 1.0, "test": 20.0, "seconds": 1030.0},
    **{"idle": 1030.0, "idle_round": 10.0, "bytes_up": 1, "bytes_down": 1, "wire": 1},
    **{"memory": 10**9, "held": 0, "disk": 10**6},
)


def test_hours_of_what_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A quarter of 100 rounds is done: 10 s to start, 20 s to test, 75 rounds of 10 s; the other run is whole."""
    monkeypatch.setattr(reproduction_plan, "estimate_cost", lambda experiment, progress, budget: FORECAST)
    monkeypatch.setattr(reproduction_plan, "free_memory", lambda: 5 * 10**9)
    monkeypatch.setattr(reproduction_plan, "processes_that_fit", lambda device, threads: 16)
    options = Reproduction("prostate", tmp_path, tmp_path, methods="fedavg,harmofl", seeds=1, device="cpu", rounds=100)
    jobs = study_of(options).jobs()
    jobs[0].folder.mkdir(parents=True)
    (jobs[0].folder / "rounds.jsonl").write_text("{}\n" * 25)
    plan = plan_work(jobs, 0, 1, lambda what, done, total: None)
    assert [(m.label, m.seconds) for m in plan.methods] == [("fedavg", (780.0,)), ("harmofl", (1030.0,))]
    assert (plan.workers, plan.total, plan.passed) == (5, 1810.0, 1030.0)  # 5 GB for 16 runs of 1 GB
    assert plan_work(jobs, 3, 1, lambda what, done, total: None).workers == 3
    (jobs[0].folder / "result.json").write_text("{}")
    assert [m.label for m in plan_work(jobs, 0, 1, lambda what, done, total: None).methods] == ["harmofl"]


def replaced(method: MethodPlan, **values: float) -> WorkPlan:
    return WorkPlan((replace(method, forecast=replace(method.forecast, **values)),), 1, "cpu")


def test_a_plan_that_does_not_fit_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reproduction_plan, "free_memory", lambda: 2 * 10**9)
    method = MethodPlan("harmofl", replace(FORECAST, short=True), (3600.0, 3600.0, 3600.0))
    lines = list(plan_lines(WorkPlan((method,), 3, "cpu, 4 cores"), tmp_path))
    assert lines[1] == "time    harmofl: 3 h 0 min for 3 runs, 10.00 s a round, 100 rounds, measured on few steps"
    (busy,) = (line for line in plan_lines(replaced(method, share=0.5, idle=600.0), tmp_path) if "harmofl" in line)
    assert "measured on few steps; other processes keep the cores busy" in busy
    assert busy.endswith("on idle ones a run takes at most 10 min")
    assert lines[2].startswith("time    in all 3 h 0 min of runs, one after the other; 3 at a time take 60 min")
    assert lines[3] == "memory  3.0 GB for 3 at a time, 2.0 GB free"
    assert lines[-1].startswith("warning: this machine may lack memory or disk")
    assert not any(line.startswith("warning") for line in plan_lines(WorkPlan((method,), 1, "cpu"), tmp_path))


def test_files_of_a_site_by_the_split_that_is_used(prostate: Path) -> None:
    data = prostate / "out" / "data"
    assert split_line(data, "given").startswith("files   train/val/test: BIDMC 8/1/3, BMC 21/3/6, ")
    assert split_line(data, "images").startswith(
        "files   single images drawn for train, val and test: BIDMC 12, BMC 30"
    )


@needs_browser
@pytest.mark.parametrize("size", SIZES)
def test_the_page_in_a_browser(done: tuple[str, Path, Result], size: str, tmp_path: Path) -> None:
    task, folder, _ = done
    with opened((folder / "out" / "paper.html").as_uri(), size) as seen:
        assert seen.page.locator("h1").is_visible()
        assert seen.count("table") == 4 + (task != "camelyon17")
        assert seen.overflow <= 0
        seen.shoot(f"paper-{task}-{size}", tmp_path)
    assert not seen.complaints
