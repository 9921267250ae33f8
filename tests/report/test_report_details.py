"""What the report of a run says beyond its scores: intervals, warnings, classes, ranks, participation, files."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from experiments import csv_rows, small
from PIL import Image
from run_folders import PAIR, edit_result, page_of, write_run, write_samples

from harmofl.evaluation.confidence_intervals import interval
from harmofl.evaluation.metrics import CaseScores
from harmofl.experiment import trainer
from harmofl.experiment.finished_run import load_runs
from harmofl.report import write_report
from harmofl.report.class_details import calibration_error, reliability
from harmofl.report.figures import participation
from harmofl.report.page_files import WRITTEN, files_of
from harmofl.report.png_images import INVENTED, MISSED, compared


def write_cases(folder, scores, groups=None, patients=None):
    cases = {
        site: {
            "cases": [f"case {k}" for k in range(len(values))],
            "groups": groups[site] if groups else [""] * len(values),
            "scores": values,
            **({"patients": patients[site]} if patients else {}),
        }
        for site, values in scores.items()
    }
    (folder / "cases.json").write_text(json.dumps(cases), encoding="utf-8")


def write_probabilities(folder, sites=PAIR):
    answers = {"A": ([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]], [0, 0, 0]), "B": ([[0.4, 0.6], [0.1, 0.9]], [1, 1])}
    arrays = {}
    for site in sites:
        arrays[f"{site}/probabilities"], arrays[f"{site}/targets"] = map(np.array, answers[site])
    np.savez(folder / "probabilities.npz", **arrays)


def plain(text):
    return text.replace("\N{EN DASH}", "-")


def test_every_site_has_its_interval_over_patients(tmp_path):
    run = write_run(tmp_path / "one")
    scores = {"A": [0.9, 0.8, 0.7, 0.8] * 5, "B": [0.75, 0.74, 0.76, 0.75] * 5}
    patients = {"A": [k // 2 for k in range(20)], "B": []}
    write_cases(run, scores, patients=patients)
    text = plain(page_of(tmp_path, run).text)
    low, high = interval(CaseScores([str(k) for k in range(20)], [""] * 20, scores["A"], patients["A"]))
    assert f"A 0.800 {low:.3f} - {high:.3f} 17 10" in text
    low, high = interval(CaseScores([str(k) for k in range(20)], [""] * 20, scores["B"]))
    assert f"B 0.750 {low:.3f} - {high:.3f} 17 20" in text
    rows = csv_rows(files_of(tmp_path / "report.html") / "g0-scores.csv")
    assert [(row["site"], float(row["low"]) < 0.8 < float(row["high"])) for row in rows] == [("A", True), ("B", False)]


def test_few_patients_and_few_of_a_class_are_warned_of(tmp_path):
    run = write_run(tmp_path / "one")
    write_cases(run, {"A": [0.9, 0.8], "B": [0.7] * 10})
    text = page_of(tmp_path, run).text
    assert "A has 2 patients for testing: its score is uncertain" in text
    assert "B has" not in text
    classes = write_run(tmp_path / "two", "fedavg", metric="balanced_accuracy")
    groups = {"A": ["0"] * 30 + ["1"] * 12, "B": ["0"] * 30 + ["1"] * 30}
    write_cases(classes, {site: [1.0] * len(groups[site]) for site in PAIR}, groups)
    text = page_of(tmp_path, classes).text
    assert "A has 12 melanoma for testing: its score is uncertain" in text
    assert "B has" not in text


def test_failures_are_counted_with_their_first_reason_and_drawn(tmp_path):
    run = write_run(tmp_path / "one")
    lines = [json.loads(line) for line in (run / "rounds.jsonl").read_text().splitlines()]
    for line in lines[1:3]:
        del line["train_loss"]["B"]
        line["left_out"] = {"B": "disk full"}
    (run / "rounds.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    text = page_of(tmp_path, run).text
    assert "left out of rounds because of errors: B in 2 rounds; the first is B in round 2: disk full" in text
    assert "8 trained, 0 not drawn, 2 left out" in text
    assert "not all in every round" in text


def test_a_run_that_was_best_at_its_end_may_go_on(tmp_path):
    run = write_run(tmp_path / "one")
    assert "more rounds" not in page_of(tmp_path, run).text
    edit_result(run, chosen_round=5, remarks=["the image cache was off"])
    text = page_of(tmp_path, run).text
    assert "the last round, 5, was the best: more rounds may give a better model" in text
    assert "the image cache was off" in text


def test_a_site_that_never_trained_is_said_to_be_one(tmp_path):
    run = write_run(tmp_path / "one")
    edit_result(run, unseen={"Z": {"dice": 0.4321}})
    text = page_of(tmp_path, run).text
    assert "Z (unseen) 0.432" in text
    assert "mean test Dice of 0.775 over 2 sites" in text
    assert "At Z, which never trained, harmofl reaches 0.432." in text


def test_sites_that_never_trained_stand_beside_the_others_and_their_images_first(tmp_path):
    runs = [write_run(tmp_path / "a"), write_run(tmp_path / "b", "fedavg", base=0.9)]
    for run, score in zip(runs, (0.4321, 0.3), strict=True):
        edit_result(run, unseen={"Z": {"dice": score}})
        write_samples(run, sites=("A", "B", "Z"))
    page = page_of(tmp_path, *runs)
    assert "fedavg has the best mean test Dice" in page.text
    assert "At Z, which never trained, harmofl is best with 0.432, 0.132 above fedavg." in page.text
    assert "Mean Worst Std Z (unseen) harmofl 0.800 0.750 0.775 0.750 0.035 0.432 fedavg" in page.text
    galleries = page.text[page.text.index("Example images", page.text.index("Over the rounds")) :]
    assert 0 < galleries.index("Site Z (unseen: it never trained)") < galleries.index("Site A")
    assert "<strong>0.432</strong>" in (tmp_path / "report.html").read_text()


def test_local_and_pooled_are_references_and_do_not_win(tmp_path):
    runs = [write_run(tmp_path / "a"), write_run(tmp_path / "b", "fedavg", base=0.7)]
    runs.append(write_run(tmp_path / "c", "pooled", base=0.95))
    text = page_of(tmp_path, *runs).text
    assert "harmofl has the best mean test Dice" in text
    assert "pooled" in text[: text.index("The best value of a column")]


def test_confusion_and_calibration_are_those_of_the_probabilities(tmp_path):
    run = write_run(tmp_path / "one", metric="balanced_accuracy")
    write_probabilities(run)
    text = page_of(tmp_path, run).text
    folder = files_of(tmp_path / "report.html")
    rows = csv_rows(folder / "g0-0-confusion.csv")
    counts = {(r["site"], r["true"], r["predicted"]): int(r["images"]) for r in rows}
    assert counts["A", "nevus", "melanoma"] == 1 and counts["A", "nevus", "nevus"] == 2
    assert counts["all sites", "melanoma", "melanoma"] == 2 and counts["B", "nevus", "nevus"] == 0
    # A: bins of 0.9, 0.8, 0.7 with 1, 1, 0 right; B: 0.6, 0.9 both right
    assert f"{(0.1 + 0.2 + 0.7) / 3:.3f} {(0.4 + 0.1) / 2:.3f}" in text
    assert (folder / "g0-calibration.png").stat().st_size > 1000


def test_calibration_error_is_nought_for_honest_answers_and_large_for_boasts():
    honest = (np.tile([0.75, 0.25], (4, 1)), np.array([0, 0, 0, 1]))
    assert calibration_error(honest) == pytest.approx(0)
    assert reliability(honest) == [(0.75, 0.75, 4)]
    assert calibration_error((np.tile([1.0, 0.0], (4, 1)), np.ones(4, int))) == pytest.approx(1)


def test_one_run_shows_its_best_median_and_worst_case_and_two_the_same_cases(tmp_path):
    runs = [write_run(tmp_path / name, name, ("A",)) for name in ("harmofl", "fedavg")]
    for run in runs:
        write_samples(run, ("A",), count=5)
        with np.load(run / "samples.npz") as found:
            arrays = dict(found)
        arrays["A/ranks"] = np.array(["", "", "best", "median", "worst"])
        arrays["A/scores"] = np.array([0.5, 0.6, 0.9, 0.7, 0.1], np.float32)
        np.savez(run / "samples.npz", **arrays)
    alone = page_of(tmp_path, runs[0]).text
    assert "Best: case 2, Dice 0.900" in alone and "Worst: case 4, Dice 0.100" in alone
    assert "case 0" not in alone
    both = page_of(tmp_path, *runs).text
    assert "Best:" not in both and "case 0" in both and "case 4" not in both


def test_difference_colours_what_was_missed_and_invented():
    truth, predicted = np.zeros((2, 8, 8), np.uint8)
    truth[:4], predicted[2:6] = 1, 1
    drawn, told = compared(np.zeros((1, 8, 8), np.float32), truth, predicted, 8)
    colours = {tuple(bytes.fromhex(c[1:])) for c in (MISSED, INVENTED)}
    assert {tuple(p) for p in drawn.reshape(-1, 3)} == {(0, 0, 0), *colours}
    assert "25.0 % false negative pixels, 25.0 % false positive pixels" in told


def test_pictures_of_groups_and_of_sites_with_like_names_do_not_replace_one_another(tmp_path):
    runs = [write_run(tmp_path / metric, sites=("A B", "A-B"), metric=metric) for metric in ("dice", "accuracy")]
    for run in runs:
        write_samples(run, ("A B", "A-B"))
    write_report(runs, tmp_path / "report.html")
    found = {path.name for path in files_of(tmp_path / "report.html").glob("*Image*.png")}
    assert len(found) == 2 * 2 * 2


def test_every_picture_is_a_file_with_its_numbers_and_old_ones_go(tmp_path):
    run = write_run(tmp_path / "one")
    write_samples(run)
    out = tmp_path / "report.html"
    folder = files_of(out)
    folder.mkdir()
    (folder / "mine.txt").write_text("not of a page")
    (folder / "stale.svg").touch()
    (folder / WRITTEN).write_text("stale.svg")
    write_report([run], out)
    assert (folder / "mine.txt").read_text() == "not of a page"
    stems = {path.stem for path in folder.glob("*.svg")}
    assert {"g0-scores", "g0-validation", "g0-loss", "g0-site0", "cost-seconds"} <= stems
    assert stems == {path.stem for path in folder.glob("*.csv")} and "stale" not in stems
    for path in folder.glob("*.png"):
        with Image.open(path) as image:
            assert min(image.size) > 20
    assert "var(--" not in (folder / "g0-scores.svg").read_text()
    rows = csv_rows(folder / "g0-validation.csv")
    assert {row["site"] for row in rows} == {"all sites", *PAIR} and len(rows) == 5 * 3
    assert len(list(folder.glob("A-0-*.png"))) == 5


def test_pictures_can_be_left_out(tmp_path):
    write_report([write_run(tmp_path / "one")], tmp_path / "report.html", pictures=False)
    assert not files_of(tmp_path / "report.html").exists()


def test_scripts_are_those_the_policy_names(tmp_path):
    text = write_report([write_run(tmp_path / "one")], tmp_path / "report.html").read_text()
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)[1]
    assert "default-src 'none'" in policy and "unsafe-eval" not in policy
    assert policy.count("sha256-") == len(re.findall(r"<script>", text)) == 2


def test_a_pooled_run_has_the_sites_that_it_was_tested_at(federation: Path, tmp_path: Path) -> None:
    trainer.run(small(federation, **{"method.name": "pooled", "training.rounds": 1}), tmp_path / "run")
    (found,) = load_runs([tmp_path / "run"])
    assert found.sites == ("site-1", "site-2")
    assert found.sites_ever == ("pooled",)
    assert "No finished run" not in write_report([tmp_path / "run"], tmp_path / "r.html").read_text(encoding="utf-8")


def test_a_site_that_was_never_drawn_is_shown(federation: Path, tmp_path: Path) -> None:
    trainer.run(small(federation, **{"training.participation": 0.5, "training.rounds": 1}), tmp_path / "run")
    (found,) = load_runs([tmp_path / "run"])
    assert set(found.sites_ever) == {"site-1", "site-2"}
    chart = participation(found, "a")
    assert chart is not None
    assert {row["state"] for row in chart.rows} == {"trained", "not drawn"}
