"""What is measured of how sites differ, on sites whose difference is known."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from harmofl.analysis.site_shift import measure_shift, standard_treatments
from harmofl.analysis.site_shift.probe_model import (
    Probed,
    elsewhere,
    filters,
    image_features,
    pixel_features,
    site_accuracy,
    within,
)
from harmofl.analysis.site_shift.spectra import brightness_distances, distance, distances, half_distance, mean_amplitude
from harmofl.data.manifest import FederationInfo
from harmofl.data.site import Federation, Site, Split
from harmofl.errors import ConfigError
from harmofl.report.amplitudes import whole_spectrum
from harmofl.report.scores import DASH
from harmofl.report.shift_outcome import shift_sentences
from harmofl.report.shift_page import render_shift_page, write_shift
from harmofl.spectral.amplitude import amplitude

SIDE = 24


def grain(seed: int, coarse: bool) -> np.ndarray:
    """(3, H, W): noise; how strong it is is the class, and the amplitude alone tells it."""
    picture = np.random.default_rng(seed).normal(0.4, 0.1 if coarse else 0.05, (SIDE, SIDE))
    return np.stack([picture] * 3).astype(np.float32)


def blob(seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    cy, cx = random.uniform(7, SIDE - 7, 2)
    inside = (y - cy) ** 2 + (x - cx) ** 2 < 30
    picture = np.where(inside, 0.2, 0.7) + random.normal(0, 0.03, (SIDE, SIDE))
    return np.stack([picture] * 3).astype(np.float32), inside.astype(np.uint8)


def site(name: str, images: np.ndarray, targets: np.ndarray, task="classification") -> Site:
    split = Split(np.clip(images, 0, 1).astype(np.float32), targets, tuple(f"c{k}" for k in range(len(images))))
    return Site(name, task, ("no", "yes"), split, split, split)


def federation(sites, task="classification") -> Federation:
    return Federation(FederationInfo("toy", task, ("no", "yes"), 3, (SIDE, SIDE)), tuple(sites))


def classes(offset: float, start: int, count: int = 24) -> tuple[np.ndarray, np.ndarray]:
    labels = np.arange(count) % 2
    return np.stack([grain(start + k, bool(labels[k])) for k in range(count)]) + offset, labels


def two_sites(offset: float) -> Federation:
    return federation([site("a", *classes(0.0, 0)), site("b", *classes(offset, 100))])


def test_spectra_of_scaled_images_differ_by_the_scale():
    images = np.random.default_rng(0).random((5, 3, 8, 10)).astype(np.float32)
    A = mean_amplitude(images)
    assert np.allclose(A, amplitude(torch.from_numpy(images)).mean(dim=0).numpy())
    assert distance(A, mean_amplitude(images * 2)) == pytest.approx(20 * np.log10(2), abs=1e-4)
    assert np.allclose(distances({"a": A, "b": mean_amplitude(images * 2)}), [[0, 6.0206], [6.0206, 0]], atol=1e-3)


def test_halves_of_a_site_are_near_and_depend_on_cases():
    images = np.random.default_rng(0).random((40, 1, 8, 8)).astype(np.float32)
    cases = np.array([f"p{k // 2}" for k in range(40)])
    assert 0 < half_distance(images, cases, 0) < 3
    assert half_distance(images, cases, 0) == half_distance(images, cases, 0)
    assert np.isnan(half_distance(images, np.array(["p"] * 40), 0))


def test_brightness_is_the_earth_movers_distance():
    shifted = np.zeros((1, 64))
    shifted[0, 10] = 1
    moved = np.roll(shifted, 16, axis=1)
    assert brightness_distances({"a": shifted, "b": moved})[0, 1] == pytest.approx(0.25)


def test_treatments_give_the_common_amplitude():
    sites = {"a": np.random.default_rng(0).random((6, 3, 8, 8)).astype(np.float32)}
    sites["b"] = sites["a"] * 0.5
    by_name = {treatment.name: treatment for treatment in standard_treatments(sites)}
    assert next(iter(by_name)) == "none" and by_name["none"].apply("a", sites["a"]) is sites["a"]
    common = (mean_amplitude(sites["a"]) + mean_amplitude(sites["b"])) / 2
    treated = amplitude(torch.from_numpy(by_name["band 1"].apply("b", sites["b"]))).numpy()
    assert np.allclose(treated, common, atol=1e-4)
    level = by_name["band 0"].apply("b", sites["b"]).mean(axis=(2, 3))
    assert np.allclose(level, common[:, 0, 0] / 64, atol=1e-5)


def test_a_shifted_site_is_told_and_normalization_hides_it():
    shift = measure_shift(two_sites(0.15), repeats=1)
    verdict = {one.treatment.name: one for one in shift.verdicts}
    assert verdict["none"].site > 0.95
    assert verdict["band 0"].site < 0.75
    assert min(verdict["none"].within.values()) > 0.9
    assert verdict["band 1"].within["a"] < 0.8  # the strength of the grain is in the amplitude
    assert any("partly lost under" in line and "band 1" in line for line in shift_sentences(shift))


def test_sites_alike_are_not_told():
    shift = measure_shift(two_sites(0.0), repeats=2)
    assert shift.verdicts[0].site < 0.75
    assert shift.distances[0, 1] < 3 * max(shift.halves.values())
    assert any("No normalization clearly helps" in line for line in shift_sentences(shift))


def test_segmentation_asks_pixels(tmp_path):
    pairs = [[blob(s * 50 + k) for k in range(12)] for s in range(3)]
    sites = [
        site(name, np.stack([x for x, _ in part]) * scale, np.stack([y for _, y in part]), "segmentation")
        for name, part, scale in zip("abc", pairs, (1.0, 0.6, 1.2), strict=True)
    ]
    shift = measure_shift(federation(sites, "segmentation"), bands=(1.0,), repeats=1)
    assert [verdict.treatment.name for verdict in shift.verdicts][:2] == ["none", "band 1"]
    assert min(shift.verdicts[0].within.values()) > 0.9
    write_shift(shift, tmp_path)
    numbers = json.loads((tmp_path / "shift.json").read_text())
    assert numbers["probe"][0]["class_accuracy_within"]["a"] > 0.9
    with Image.open(tmp_path / "shift.png") as picture:
        assert picture.size[0] > 800
    page = (tmp_path / "shift.html").read_text()
    assert page.count("data:image/png") == 3 + 3 * 2 * len(shift.verdicts)
    assert "from a pixel" in page


def test_few_cases_leave_a_gap_and_not_an_error():
    images, labels = classes(0.0, 0, count=4)
    shift = measure_shift(federation([site("a", *classes(0.1, 50)), site("b", images, labels)]), repeats=1)
    assert np.isnan(shift.verdicts[0].within["b"])
    assert DASH in render_shift_page(shift)


def test_the_same_seed_measures_the_same():
    one, two, other = (measure_shift(two_sites(0.1), images=20, seed=seed, repeats=1) for seed in (0, 0, 1))
    assert one.verdicts[0].repeats == two.verdicts[0].repeats
    assert one.halves == two.halves
    assert [v.repeats for v in one.verdicts] != [v.repeats for v in other.verdicts]


def test_what_cannot_be_measured():
    with pytest.raises(ConfigError, match="toy: at least 2 sites must have training images, got 1"):
        measure_shift(federation([site("a", *classes(0.0, 0))]))
    small = np.zeros((6, 3, 8, 8), dtype=np.float32)
    with pytest.raises(ConfigError, match="at least 12 x 12 pixels"):
        measure_shift(federation([site(name, small, np.arange(6) % 2) for name in "ab"]))


def test_probe_never_parts_a_case():
    """Features that tell the case and not the class: with cases parted it would score 1, without about .5."""
    random = np.random.default_rng(0)
    cases = np.repeat(np.arange(30), 4)
    labels = np.repeat(random.permutation(np.arange(30) % 2), 4)
    features = np.eye(30)[cases] + random.normal(0, 0.01, (120, 30))
    score = within({"a": Probed(features.astype(np.float32), labels, cases.astype(str))}, 0)["a"]
    assert score < 0.75


def test_probe_at_other_sites_and_of_sites():
    random = np.random.default_rng(0)
    labels = np.arange(60) % 2
    groups = np.arange(60).astype(str)
    plain = (labels[:, None] * 2 - 1 + random.normal(0, 0.2, (60, 4))).astype(np.float32)
    sites = {
        "a": Probed(plain, labels, groups),
        "b": Probed(-plain, labels, groups),
        "c": Probed(plain, labels, groups),
    }
    scores = elsewhere(sites)
    assert scores["b"] < 0.1
    scores = elsewhere({"a": sites["a"], "one class": Probed(plain, np.zeros_like(labels), groups)})
    assert np.isnan(scores["a"]) and not np.isnan(scores["one class"])
    marked = {name: Probed(one.features + k * 5, one.labels, one.groups) for k, (name, one) in enumerate(sites.items())}
    assert site_accuracy(marked, 0) > 0.95


def test_features_at_the_border():
    images = np.random.default_rng(0).random((3, 1, 13, 14)).astype(np.float32)
    weights = filters([images], 0)
    assert image_features(images, weights).shape == (3, 2 * len(weights) + 2)
    masks = np.zeros((3, 13, 14), dtype=np.uint8)
    masks[:, 0, 0] = masks[:, -1, -1] = 1
    features, labels, owners = pixel_features(images, masks, weights, 0)
    assert features.shape == (3 * (5 + 2), 2 * (2 * len(weights) + 1))
    assert labels.sum() == 6 and np.bincount(owners).tolist() == [7, 7, 7]
    assert np.isfinite(features).all()


def test_the_whole_spectrum_of_a_half():
    for width in (8, 9):
        image = np.random.default_rng(0).random((6, width))
        whole = np.fft.fftshift(np.log10(np.abs(np.fft.fft2(image))))
        assert np.allclose(whole_spectrum(np.abs(np.fft.rfft2(image)), width), whole)
