import ast
import base64
import errno
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from run_folders import PAIR, SITES, Page, edit_result, page_of, write_run, write_samples

import harmofl.report
from harmofl.errors import ConfigError, RunError, StorageError
from harmofl.report import pictures, png_images, write_report


def test_comparison_says_who_is_best_and_shows_every_number(tmp_path):
    first = write_run(tmp_path / "one", "harmofl", SITES, base=0.85)
    second = write_run(tmp_path / "two", "fedavg", SITES, base=0.81)
    page = page_of(tmp_path, first, second)
    assert (
        "harmofl has the best mean test Dice, 0.775 over 4 sites, 0.040 above fedavg; "
        "its worst site is D with 0.700, and its model was chosen by validation at round 4 of 5."
    ) in page.text
    for site in SITES:
        assert f"Site {site}" in page.text
    for number in ("0.850", "0.800", "0.750", "0.700", "0.810", "0.760", "0.710", "0.660"):
        assert number in page.text
    for said in ("0.065", "IoU", "31.0 MB", "30.0 MB", "305.0 MB", "123,456", "61", "decay.factor", "2.6.0"):
        assert said in page.text


def test_page_is_self_contained_well_formed_and_the_same_when_written_again(tmp_path):
    runs = [write_run(tmp_path / name, name) for name in ("harmofl", "fedavg")]
    for run in runs:
        write_samples(run)
    out = write_report(runs, tmp_path / "deep" / "report.html")
    text = out.read_text(encoding="utf-8")
    page = Page(text)
    assert all(link.startswith(("#", "data:")) for link in page.links)
    shown = re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)
    assert set(re.findall(r"https?://[^\"' <]*", shown)) <= {"https://vega.github.io/schema/vega-lite/v6.json"}
    assert "@import" not in shown and not re.search(r"<script[^>]* src=|<link[^>]*(stylesheet|preload)", shown)
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", shown))
    assert len(page.ids) == len(set(page.ids))
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    assert all(image["alt"] for image in page.images)
    assert shown.count('role="img"') == len(["scores", "validation", "loss", "seconds", *PAIR])
    assert out.stat().st_size < 5_000_000
    assert write_report(runs, out).read_text(encoding="utf-8") == text


def test_unfinished_run_says_how_far_it_got(tmp_path):
    done = write_run(tmp_path / "one")
    page = page_of(tmp_path, done, write_run(tmp_path / "two", "fedavg", rounds=2, finished=False))
    assert "not finished: 2 of 5 rounds" in page.text
    assert "harmofl reaches a mean test Dice" in page.text


@pytest.mark.parametrize("rounds", [0, 1])
def test_only_unfinished_run_has_no_outcome_yet(tmp_path, rounds):
    page = page_of(tmp_path, write_run(tmp_path / "one", sites=("A",), rounds=rounds, finished=False))
    assert f"Nothing to compare yet: harmofl has done {rounds} of 5 rounds." in page.text


def test_segmentation_samples_show_image_normalized_truth_and_prediction(tmp_path):
    runs = [write_run(tmp_path / name, name) for name in ("harmofl", "fedavg")]
    write_samples(runs[0])
    write_samples(runs[1], normalized=False)
    page = page_of(tmp_path, *runs)
    for caption in ("Image", "Truth", "harmofl: normalized", "harmofl: prediction", "fedavg: difference"):
        assert caption in page.text
    assert "before normalization" in page.text
    assert "fedavg: normalized" not in page.text
    assert len(page.images) == len(PAIR) * 2 * 7  # the two runs share images and truths


def test_outline_follows_the_mask_in_the_colour_of_its_class(tmp_path):
    run = write_run(tmp_path / "one", sites=("A",))
    write_samples(run, ("A",), size=256, count=1, normalized=False, channels=1)
    truth = page_of(tmp_path, run).images[1]["src"]
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(truth.partition(",")[2]))))
    yellow = (pixels == (0xF0, 0xE4, 0x42)).all(axis=-1)
    assert yellow[6:8, 6:14].all() and yellow[6:14, 12:14].all()
    assert not yellow[8:12, 8:12].any() and yellow.sum() == 8 * 8 - 4 * 4


def test_classification_names_true_and_predicted_class(tmp_path):
    run = write_run(tmp_path / "one", metric="balanced_accuracy")
    other = write_run(tmp_path / "two", "fedavg", base=0.7, metric="balanced_accuracy")
    write_samples(run, masks=False)
    write_samples(other, masks=False, normalized=False)
    text = page_of(tmp_path, run, other).text
    assert "best mean test balanced accuracy, 0.775 over 2 sites" in text
    assert "Image, truth: nevus" in text
    assert "harmofl: normalized, predicted: melanoma (correct)" in text
    assert "fedavg, predicted: melanoma (wrong)" in text


def test_runs_that_cannot_be_compared_get_an_outcome_each(tmp_path):
    masks = write_run(tmp_path / "one")
    classes = write_run(tmp_path / "two", "fedavg", ("X",), metric="balanced_accuracy")
    text = page_of(tmp_path, masks, classes).text
    assert "harmofl reaches a mean test Dice" in text
    assert "fedavg reaches a mean test balanced accuracy" in text


def test_names_are_escaped(tmp_path):
    site = '<b>&"x" $a$ 北京'
    run = write_run(tmp_path / "one", "<i>&", (site, "B"))
    write_samples(run, (site,))
    out = write_report([run], tmp_path / "report.html")
    text = out.read_text(encoding="utf-8")
    assert "<b>" not in text and "<i>" not in text
    assert f"Site {site}" in Page(text).text


def test_one_method_twice_is_told_apart_by_folder(tmp_path):
    runs = [write_run(tmp_path / folder, sites=("A",)) for folder in ("seed1", "seed2", "again/seed2")]
    text = page_of(tmp_path, *runs, runs[0]).text
    assert "Comparison of 3 runs" in text
    assert "harmofl (seed1)" in text and "harmofl (again/seed2)" in text
    assert "share the best mean test Dice" in text


def test_missing_values_are_en_dashes_and_do_not_rank(tmp_path):
    run, other = write_run(tmp_path / "one", base=0.9), write_run(tmp_path / "two", "fedavg", base=0.5)
    scores = {site: {"dice": 0.9} for site in PAIR} | {"B": {"dice": None}}
    edit_result(run, test=scores, num_params=None, seconds_per_round=None)
    text = page_of(tmp_path, run, other).text
    assert "harmofl 0.900 - - - -" in text.replace("\N{EN DASH}", "-")
    assert "fedavg reaches a mean test Dice" in text
    assert not re.search(r"\bnan\b|\bNone\b", text)


def test_too_many_samples_are_made_fewer_and_smaller_or_left_out_with_a_word(tmp_path, monkeypatch):
    run = write_run(tmp_path / "one", sites=("A",))
    write_samples(run, ("A",), size=120, count=4)
    whole = page_of(tmp_path, run).images
    monkeypatch.setattr("harmofl.report.pictures.BUDGET", 100_000)
    fewer = page_of(tmp_path, run).images
    assert 0 < len(fewer) < len(whole)
    assert sum(len(image["src"]) for image in fewer) <= 100_000
    monkeypatch.setattr("harmofl.report.pictures.BUDGET", 10)
    page = page_of(tmp_path, run)
    assert page.images == [] and "make a report of fewer runs" in page.text


def test_sizes_that_do_not_fit_are_left_after_a_few_pictures(tmp_path, monkeypatch):
    runs = [write_run(tmp_path / f"run{k}", sites=PAIR) for k in range(12)]
    for run in runs:
        write_samples(run, PAIR, size=60, count=4)
    drawn = []
    monkeypatch.setattr(pictures, "data_uri", lambda pixels: drawn.append(pixels.shape) or png_images.data_uri(pixels))
    kept = page_of(tmp_path, *runs).images
    assert 0 < sum(len(image["src"]) for image in kept) <= pictures.BUDGET
    assert len(kept) < len(drawn) <= len(kept) + pictures.FIRST * len(pictures.LIMITS)


def test_a_folder_is_no_place_for_the_page(tmp_path):
    with pytest.raises(ConfigError, match="must be the name of the HTML file"):
        write_report([write_run(tmp_path / "one")], tmp_path)


def test_a_record_that_a_kill_cut_short_is_left_out(tmp_path):
    run = write_run(tmp_path / "one", sites=("A",), rounds=2, finished=False)
    with (run / "rounds.jsonl").open("a") as file:
        file.write('{"round": 3, "sec')
    assert "harmofl has done 2 of 5 rounds" in page_of(tmp_path, run).text


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("config.toml", None, "missing"),
        ("config.toml", "run = [", "not valid TOML"),
        ("rounds.jsonl", '{"round": 1}\n{"round":\n', "line 2"),
        ("rounds.jsonl", '{"round": "first"}\n', "round"),
        ("rounds.jsonl", b"\xff\xfe", "cannot be read"),
        ("result.json", "{", "Invalid JSON"),
        ("result.json", "[]", "not what training writes"),
        ("result.json", "{}", "name"),
        ("samples.npz", "no archive", "cannot be read"),
    ],
)
def test_damaged_run_names_the_file_in_one_line(tmp_path, name, content, reason):
    path = write_run(tmp_path / "one") / name
    path.unlink(missing_ok=True)
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(RunError) as caught:
        write_report([path.parent], tmp_path / "report.html")
    message = str(caught.value)
    assert str(path) in message and reason in message and "\n" not in message
    assert not (tmp_path / "report.html").exists()


def test_samples_that_do_not_fit_one_another_are_refused(tmp_path):
    run = write_run(tmp_path / "one", sites=("A",))
    write_samples(run, ("A",))
    with np.load(run / "samples.npz") as arrays:
        damaged = {**arrays, "A/targets": arrays["A/targets"][:1]}
    np.savez(run / "samples.npz", **damaged)
    with pytest.raises(RunError, match="do not fit"):
        write_report([run], tmp_path / "report.html")


def test_no_run_or_no_such_run(tmp_path):
    with pytest.raises(RunError, match="at least one"):
        write_report([], tmp_path / "report.html")
    with pytest.raises(RunError, match="no run folder"):
        write_report([tmp_path / "absent"], tmp_path / "report.html")
    write_run(tmp_path / "study" / "fedavg" / "seed-0")
    (tmp_path / "study" / "table.json").touch()
    with pytest.raises(RunError, match=r"comparison, whose page is .*report\.html; give runs in it.*fedavg/seed-0$"):
        write_report([tmp_path / "study"], tmp_path / "report.html")


def test_report_that_cannot_be_written_leaves_nothing_behind(tmp_path, monkeypatch):
    run = write_run(tmp_path / "one", sites=("A",))

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(StorageError, match=r"report\.html"):
        write_report([run], tmp_path / "report.html")
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_importing_the_report_does_not_import_the_drawing():
    tree = ast.parse(Path(harmofl.report.__file__).read_text(encoding="utf-8"))
    imported = {node.module for node in tree.body if isinstance(node, ast.ImportFrom)}
    assert imported == {"collections.abc", "pathlib", "harmofl.errors"}
