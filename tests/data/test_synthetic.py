import itertools
import json
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from folders_on_disk import patients_by_split
from PIL import Image

from harmofl.data.manifest import read_info, read_manifest
from harmofl.errors import DataError, StorageError
from harmofl.ingest.synthetic import cells, cells_anatomy, mri
from harmofl.ingest.synthetic.common import Bytes, FloatImage, smooth_noise, spread
from harmofl.ingest.synthetic.federation import (
    CLASSES,
    Anatomy,
    Sample,
    draw_sample,
    draw_style,
    write_federation,
)
from harmofl.types import Task
from harmofl.utils.seeding import rng

KINDS = get_args(Anatomy)
SITES, IMAGES, SIZE = 4, 12, 48


def samples(kind: Anatomy, shift: float, seed: int = 0) -> list[list[Sample]]:
    styles = [draw_style(kind, seed=seed, site=site, shift=shift) for site in range(SITES)]
    return [
        [draw_sample(style, size=SIZE, seed=seed, site=site, patient=i // 2, image=i) for i in range(IMAGES)]
        for site, style in enumerate(styles)
    ]


@pytest.fixture(scope="module", params=KINDS)
def drawn(request: pytest.FixtureRequest) -> dict[float, list[list[Sample]]]:
    return {shift: samples(request.param, shift) for shift in (0.0, 1.0)}


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def spectrum(site: list[Sample]) -> FloatImage:
    """Mean log-amplitude over the images and channels of a site, averaged over rings of equal frequency."""
    stack = np.stack([s.image.reshape(SIZE, SIZE, -1) for s in site]) / 255.0
    log_amplitude = np.log(np.abs(np.fft.fft2(stack, axes=(1, 2))) + 1e-3).mean(axis=(0, 3))
    v, u = np.meshgrid(np.fft.fftfreq(SIZE), np.fft.fftfreq(SIZE), indexing="ij")
    ring = np.minimum(np.hypot(u, v) * SIZE, SIZE // 2 - 1).astype(int)
    rings: FloatImage = np.bincount(ring.ravel(), log_amplitude.ravel()) / np.bincount(ring.ravel())
    return rings


def distance(a: FloatImage, b: FloatImage) -> float:
    return float(np.sqrt(np.mean((a - b) ** 2)))


def between_and_within(sites: list[list[Sample]]) -> tuple[float, float]:
    halves = [(spectrum(site[0::4] + site[1::4]), spectrum(site[2::4] + site[3::4])) for site in sites]
    within = np.mean([distance(a, b) for a, b in halves])
    pairs = itertools.combinations(halves, 2)
    between = np.mean([distance(first, other) for (first, _), (_, other) in pairs])
    return float(between), float(within)


# ---------------------------------------------------------------------------------- the same and not the same


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("task", get_args(Task))
def test_same_call_writes_same_bytes(tmp_path: Path, kind: Anatomy, task: Task) -> None:
    for name in ("a/same", "b/same"):
        write_federation(tmp_path / name, kind=kind, task=task, sites=2, images=6, size=32, seed=5)
    assert files(tmp_path / "a") == files(tmp_path / "b")


@pytest.mark.parametrize("kind", KINDS)
def test_another_seed_writes_other_images(kind: Anatomy) -> None:
    style = draw_style(kind, seed=0, site=0, shift=0.0)
    a, b = (draw_sample(style, size=32, seed=s, site=0, patient=0, image=0) for s in (0, 1))
    assert not np.array_equal(a.image, b.image)
    assert not np.array_equal(a.mask, b.mask)


def test_patients_share_their_body_but_not_their_slice() -> None:
    a, b = (mri.draw_scene(64, False, rng(1), rng(image)) for image in (2, 3))
    other = mri.draw_scene(64, False, rng(4), rng(3))
    body = [1.0 - scene.fractions[mri.INDEX["air"]] for scene in (a, b, other)]
    assert not np.array_equal(a.mask, b.mask)
    assert np.abs(body[0] - body[1]).mean() < 0.5 * np.abs(body[0] - body[2]).mean()


def test_anatomy_does_not_depend_on_the_style(drawn: dict[float, list[list[Sample]]]) -> None:
    for plain, shifted in zip(itertools.chain(*drawn[0.0]), itertools.chain(*drawn[1.0]), strict=True):
        assert np.array_equal(plain.mask, shifted.mask)
        assert not np.array_equal(plain.image, shifted.image)


def test_without_shift_sites_look_alike_up_to_sampling(drawn: dict[float, list[list[Sample]]]) -> None:
    means = np.array([[s.image.reshape(SIZE * SIZE, -1).mean(axis=0) for s in site] for site in drawn[0.0]])
    error = means.std(axis=1, ddof=1) / math.sqrt(IMAGES)
    spread_of_sites = means.mean(axis=1).std(axis=0, ddof=1)
    assert np.all(spread_of_sites < 2.5 * error.mean(axis=0))
    between, within = between_and_within(drawn[0.0])
    assert between < 1.5 * within


def test_with_shift_sites_differ_much_more_than_images_of_one_site(
    drawn: dict[float, list[list[Sample]]],
) -> None:
    between, within = between_and_within(drawn[1.0])
    assert between > 3.0 * within


@pytest.mark.parametrize("kind", KINDS)
def test_shift_scales_the_difference_between_sites(kind: Anatomy) -> None:
    gaps = []
    for shift in (0.0, 0.5, 1.0):
        styles = [draw_style(kind, seed=3, site=site, shift=shift) for site in range(2)]
        gaps.append(abs(math.log(styles[0].gamma / styles[1].gamma)))
    assert gaps[0] == 0.0
    assert gaps[2] == pytest.approx(2.0 * gaps[1])


def test_four_sites_lie_in_the_four_quarters_of_every_range() -> None:
    for first in (0, 4):
        z = np.array([spread(7, site, 10) for site in range(first, first + 4)])
        assert np.array_equal(np.sort(np.floor((z + 1.0) * 2.0), axis=0), np.arange(4)[:, None] * np.ones(10))


def test_smooth_noise_is_standard_and_smooth() -> None:
    fields = np.array([smooth_noise(64, 2.0, rng(i)) for i in range(40)])
    assert abs(fields.mean()) < 0.05
    assert fields.std() == pytest.approx(1.0, abs=0.03)
    neighbours = np.mean(fields[:, :, 1:] * fields[:, :, :-1])
    assert neighbours == pytest.approx(math.exp(-1.0 / (4.0 * 2.0**2)), abs=0.03)


# ----------------------------------------------------------------------------------------------- the physics


def plain_cells() -> cells.CellsStyle:
    return replace(
        cells.draw_style(0, 0, 0.0),
        haematoxylin=(0.65, 0.70, 0.29),
        eosin=(0.07, 0.99, 0.11),
        haematoxylin_strength=1.0,
        eosin_strength=2.0,
        light=0.9,
        gain=(1.0, 1.0, 1.0),
        gamma=1.0,
    )


def test_beer_lambert_by_hand() -> None:
    light = cells.transmit(np.full((1, 1), 1.5), np.full((1, 1), 0.25), plain_cells())
    expected = [
        0.9 * math.exp(-(0.65 * 1.5 + 0.07 * 0.5)),
        0.9 * math.exp(-(0.70 * 1.5 + 0.99 * 0.5)),
        0.9 * math.exp(-(0.29 * 1.5 + 0.11 * 0.5)),
    ]
    assert light.shape == (1, 1, 3)
    assert light[0, 0] == pytest.approx(expected, rel=1e-12)


def test_glass_without_tissue_shows_the_light() -> None:
    style = replace(plain_cells(), light=0.8, full_well=1e9, read_noise=0.0)
    empty = np.zeros((8, 8))
    image = cells.scan(cells.transmit(empty, empty, style), style, rng(0))
    assert image.dtype == np.uint8
    assert np.all(image == round(0.8 * 255))


def test_shot_noise_has_the_variance_of_photons() -> None:
    style = replace(plain_cells(), full_well=400.0, read_noise=0.01, blur=0.0)
    image = cells.scan(np.full((200, 200, 3), 0.5), style, rng(0)) / 255.0
    expected = math.sqrt(0.5 / 400.0 + 0.01**2 + 1.0 / (12.0 * 255.0**2))
    assert image.mean() == pytest.approx(0.5, abs=1e-3)
    assert image.std() == pytest.approx(expected, rel=0.02)


def test_white_balance_and_gamma_by_hand() -> None:
    style = replace(plain_cells(), full_well=1e9, read_noise=0.0, gain=(1.2, 1.0, 0.8), gamma=1.5)
    image = cells.scan(np.full((8, 8, 3), 0.5), style, rng(0))
    assert image[4, 4].tolist() == [round(255 * (0.5 * g) ** 1.5) for g in (1.2, 1.0, 0.8)]


@pytest.mark.parametrize("seed", range(5))
def test_stain_vectors_are_unit_and_positive(seed: int) -> None:
    for site, shift in itertools.product(range(4), (0.0, 1.0, 3.0)):
        style = cells.draw_style(seed, site, shift)
        for vector in (style.haematoxylin, style.eosin):
            assert min(vector) > 0.0
            assert math.hypot(*vector) == pytest.approx(1.0)


def test_rician_noise_has_its_mean_without_signal_and_with_much() -> None:
    dark = mri.rician(np.zeros((400, 400)), 0.05, rng(0))
    bright = mri.rician(np.full((400, 400), 1.0), 0.05, rng(1))
    assert dark.mean() == pytest.approx(0.05 * math.sqrt(math.pi / 2.0), rel=0.005)
    assert np.mean(dark**2) == pytest.approx(2.0 * 0.05**2, rel=0.01)
    assert bright.mean() == pytest.approx(1.0 + 0.05**2 / 2.0, abs=5e-4)
    assert bright.std() == pytest.approx(0.05, rel=0.01)


def test_spin_echo_contrast_by_hand() -> None:
    style = replace(mri.draw_style(0, 0, 0.0), echo_time=100.0, repetition_time=4000.0, fat=0.5)
    fluid = 1.0 * (1.0 - math.exp(-4000.0 / 4000.0)) * math.exp(-100.0 / 1200.0)
    muscle = 0.8 * (1.0 - math.exp(-4000.0 / 1400.0)) * math.exp(-100.0 / 45.0)
    fat = 0.5 * 0.9 * (1.0 - math.exp(-4000.0 / 380.0)) * math.exp(-100.0 / 130.0)
    signals = mri.tissue_signals(style)
    assert signals[mri.INDEX["air"]] == 0.0
    assert signals[mri.INDEX["fluid"]] == 1.0
    assert signals[mri.INDEX["muscle"]] == pytest.approx(muscle / fluid)
    assert signals[mri.INDEX["fat"]] == pytest.approx(fat / fluid)
    assert signals[mri.INDEX["lesion"]] < 0.7 * signals[mri.INDEX["peripheral zone"]]


def test_bias_field_is_smooth_positive_and_one_on_geometric_average() -> None:
    flat = replace(mri.draw_style(0, 0, 0.0), bias=(0.0,) * len(mri.BIAS_TERMS))
    assert np.all(mri.bias_field(32, flat) == 1.0)
    field = mri.bias_field(32, replace(flat, bias=(0.5, 0.0, 0.0, 0.0, 0.0)))
    assert np.log(field).mean() == pytest.approx(0.0, abs=1e-12)
    assert field[31, 5] / field[0, 5] == pytest.approx(math.exp(0.5 * (31 / 32 + 31 / 32)))
    assert np.ptp(field, axis=1) == pytest.approx(0.0, abs=1e-12)


# ----------------------------------------------------------------------------------------------- the anatomy


def test_masks_cover_a_sane_part_and_are_binary(drawn: dict[float, list[list[Sample]]]) -> None:
    for sample in itertools.chain(*drawn[0.0]):
        low, high = (0.10, 0.60) if sample.image.ndim == 3 else (0.02, 0.12)
        assert set(np.unique(sample.mask)) == {0, 255}
        assert low < np.mean(sample.mask > 0) < high


def test_nuclei_are_darker_than_what_is_around_them() -> None:
    for site, image in itertools.product(range(SITES), range(3)):
        style = draw_style("cells", seed=2, site=site, shift=1.0)
        sample = draw_sample(style, size=64, seed=2, site=site, patient=0, image=image)
        red = sample.image[..., 0].astype(float)
        assert red[sample.mask > 0].mean() < red[sample.mask == 0].mean() - 10.0


def test_tumor_nuclei_are_larger_and_darker() -> None:
    scenes = {
        tumor: [cells_anatomy.draw_scene(96, tumor, rng(i, "patient"), rng(i, "image")) for i in range(6)]
        for tumor in (False, True)
    }
    area = {tumor: np.mean([s.mask.mean() for s in scenes[tumor]]) for tumor in scenes}
    dye = {tumor: np.mean([s.haematoxylin[s.mask].mean() for s in scenes[tumor]]) for tumor in scenes}
    assert area[True] > 1.1 * area[False]
    assert dye[True] > 1.1 * dye[False]


def test_lesion_lies_in_the_gland_and_only_where_asked_for() -> None:
    for i in range(10):
        healthy, ill = (mri.draw_scene(64, ill, rng(i, "patient"), rng(i, "image")) for ill in (False, True))
        focus = ill.fractions[mri.INDEX["lesion"]]
        assert not healthy.fractions[mri.INDEX["lesion"]].any()
        assert np.array_equal(healthy.mask, ill.mask)
        assert 5.0 < focus.sum() < 0.2 * ill.mask.sum()
        assert focus[ill.mask].sum() > 0.9 * focus.sum()
        assert ill.fractions.sum(axis=0) == pytest.approx(1.0)


# -------------------------------------------------------------------------------------------------- on disk


@pytest.mark.parametrize(("kind", "task"), CLASSES)
def test_layout_is_what_the_manifest_says(tmp_path: Path, kind: Anatomy, task: Task) -> None:
    seen: list[tuple[int, int]] = []
    info = write_federation(
        tmp_path / "fed",
        kind=kind,
        task=task,
        sites=2,
        images=[6, 9],
        size=32,
        progress=lambda what, done, total: seen.append((done, total)),
    )
    assert seen == [(i, 15) for i in range(1, 16)]
    assert read_info(tmp_path / "fed") == info
    assert (info.task, info.classes, info.licence) == (task, CLASSES[kind, task], "Apache-2.0 (generated)")
    for site, count in (("site-1", 6), ("site-2", 9)):
        records = read_manifest(tmp_path / "fed" / site)
        assert len(records) == count
        for record in records:
            with Image.open(tmp_path / "fed" / site / record.image) as image:
                assert (image.size, image.mode) == ((32, 32), "RGB" if kind == "cells" else "L")
            if task == "segmentation":
                mask: Bytes = np.asarray(Image.open(tmp_path / "fed" / site / record.target))
                assert set(np.unique(mask)) == {0, 255}
            else:
                assert record.target in info.classes


@pytest.mark.parametrize("images", [6, 7, 24])
def test_patients_are_on_one_side_and_classes_balanced(tmp_path: Path, images: int) -> None:
    write_federation(tmp_path, task="classification", sites=3, images=images, size=32)
    for site in ("site-1", "site-2", "site-3"):
        records = read_manifest(tmp_path / site)
        sides = patients_by_split(tmp_path / site)
        assert set(sides) == {"train", "val", "test"}
        assert sum(map(len, sides.values())) == len(set.union(*sides.values()))
        assert all(2 <= n <= 3 for n in Counter(record.patient for record in records).values())
        classes = Counter(record.target for record in records)
        assert abs(classes["normal"] - classes["tumor"]) <= 1
        for split in ("train", "val", "test"):
            assert {r.target for r in records if r.split == split} == {"normal", "tumor"}


def test_split_is_about_60_15_25(tmp_path: Path) -> None:
    write_federation(tmp_path, sites=1, images=60, size=32)
    splits = {record.patient: record.split for record in read_manifest(tmp_path / "site-1")}
    share = {split: count / len(splits) for split, count in Counter(splits.values()).items()}
    assert share == pytest.approx({"train": 0.60, "val": 0.15, "test": 0.25}, abs=0.03)


def test_slices_of_a_patient_are_one_case_and_tiles_are_not(tmp_path: Path) -> None:
    for kind in KINDS:
        write_federation(tmp_path / kind, kind=kind, sites=1, images=6, size=32)
        records = read_manifest(tmp_path / kind / "site-1")
        assert len({record.case for record in records}) == {"cells": 6, "mri": 3}[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_style_is_stored(tmp_path: Path, kind: Anatomy) -> None:
    write_federation(tmp_path, kind=kind, sites=2, images=6, size=32, shift=0.7, seed=11)
    for site in range(2):
        path = tmp_path / f"site-{site + 1}"
        style = json.loads(json.dumps(asdict(draw_style(kind, seed=11, site=site, shift=0.7))))
        assert json.loads((path / "style.json").read_text()) == {"kind": kind, "shift": 0.7, "style": style}


def test_names_of_many_sites_sort_as_numbers(tmp_path: Path) -> None:
    write_federation(tmp_path, kind="mri", sites=10, images=6, size=32)
    names = sorted(path.name for path in tmp_path.iterdir() if path.is_dir())
    assert names == [f"site-{i:02d}" for i in range(1, 11)]


# --------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"kind": "bones"}, "kind must be cells or mri, got 'bones'"),
        ({"task": "regression"}, "task must be classification or segmentation, got 'regression'"),
        ({"sites": 0}, "sites must be at least 1, got 0"),
        ({"sites": -1}, "sites must be at least 1, got -1"),
        ({"images": 5}, "images must be at least 6 per site, two for each split, got 5"),
        ({"images": [6, 6, 6, 2]}, "images must be at least 6 per site"),
        ({"images": [6, 6]}, "images must be one number or one per site, got 2 for 4 sites"),
        ({"size": 31}, "size must be at least 32 pixels, got 31"),
        ({"shift": -0.1}, "shift must be a finite number of at least 0, got -0.1"),
        ({"shift": math.nan}, "shift must be a finite number of at least 0, got nan"),
        ({"shift": math.inf}, "shift must be a finite number of at least 0, got inf"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
    ],
)
def test_bad_arguments(tmp_path: Path, wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError) as error:
        write_federation(tmp_path / "fed", **wrong)
    assert says in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "fed").exists()


def remove_info(folder: Path) -> None:
    (folder / "federation.toml").unlink()


@pytest.mark.parametrize("before", [lambda folder: None, remove_info])
def test_a_federation_is_not_overwritten(tmp_path: Path, before: Callable[[Path], None]) -> None:
    write_federation(tmp_path, sites=1, images=6, size=32)
    before(tmp_path)
    with pytest.raises(DataError, match="must not hold a federation"):
        write_federation(tmp_path, sites=1, images=6, size=32)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="could not be written"):
        write_federation(tmp_path / "file" / "fed", sites=1, images=6, size=32)
