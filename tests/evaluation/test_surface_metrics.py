"""Surface scores of boxes, against values computed by hand and against scipy."""

import math
from itertools import product

import numpy as np
import pytest
from scipy.ndimage import binary_erosion, distance_transform_edt

from harmofl.errors import ShapeError
from harmofl.evaluation.surface_metrics import SurfaceScore, surface_scores
from harmofl.evaluation.surface_summary import StructureScore, StructureSummary, summaries


def box(shape: tuple[int, ...], start: tuple[int, ...], size: tuple[int, ...], label: int = 1) -> np.ndarray:
    labels = np.zeros(shape, np.uint8)
    labels[tuple(slice(low, low + length) for low, length in zip(start, size, strict=True))] = label
    return labels


def reference_hausdorff(one: np.ndarray, other: np.ndarray, spacing: tuple[float, ...]) -> float:
    """From distance maps of whole volumes, where MONAI asks a tree of surface voxels."""
    surfaces = [mask & ~binary_erosion(np.pad(mask, 1))[(slice(1, -1),) * mask.ndim] for mask in (one, other)]
    maps = [distance_transform_edt(~surface, sampling=spacing) for surface in surfaces]
    return max(np.percentile(maps[1][surfaces[0]], 95), np.percentile(maps[0][surfaces[1]], 95))


@pytest.mark.parametrize(("axis", "shift"), [(0, 1), (0, 2), (1, 3), (2, 4)])
def test_a_shifted_box_is_as_far_away_as_it_was_shifted(axis: int, shift: int) -> None:
    """Each side of a cube of 8 has 64 of its 296 surface voxels, and those of one side are `shift` voxels away.

    Both cubes share `8 - shift` of 8 layers.
    """
    spacing = (3.0, 0.5, 0.7)
    start = tuple(2 + shift * (k == axis) for k in range(3))
    true, predicted = box((16, 16, 16), (2, 2, 2), (8, 8, 8)), box((16, 16, 16), start, (8, 8, 8))
    (found,) = surface_scores(predicted, true, 2, spacing, tolerance=shift * spacing[axis])
    assert found == SurfaceScore("found", pytest.approx(shift * spacing[axis]), 1.0, (8 - shift) / 8)
    (strict,) = surface_scores(predicted, true, 2, spacing, tolerance=0.0)
    assert 0 < strict.surface_dice < 1


@pytest.mark.parametrize(("shift", "tolerance"), [*product([1, 2, 3], [0.0, 1.1])])
def test_surface_dice_of_a_shifted_rectangle(shift: int, tolerance: float) -> None:
    """The outline of 4 x 6 pixels of 3 x 0.5 mm is on the corners of pixels.

    It has 4 corners, which count d = hypot(3, 0.5) / 2 each, 2 x 5 points of 0.5 on the sides along the rows and 2 x 3
    of 3 on those along the columns. Shifted by k columns, points at the columns k..6 stay on the other outline:
    on both sides one corner and 6 - k points. Within a tolerance of 1.1 mm are 2 more columns: for k <= 2 all points,
    for k = 3 all but the 2 corners and the 3 points of the far side, and the 3 points of the near side.
    """
    true, predicted = box((10, 16), (3, 3), (4, 6)), box((10, 16), (3, 3 + shift), (4, 6))
    d = math.hypot(3, 0.5) / 2
    whole = 4 * d + 2 * 5 * 0.5 + 2 * 3 * 3
    within = 2 * (d + (6 - shift) * 0.5)
    if tolerance:
        within = whole if shift <= 2 else whole - 2 * d - 2 * 3 * 3
    (found,) = surface_scores(predicted, true, 2, (3.0, 0.5), tolerance)
    assert found.surface_dice == pytest.approx(within / whole, abs=1e-6)


def test_slabs_that_touch_share_half_of_their_surface() -> None:
    """Of each slab of one slice of 5 mm, one of two equal sides lies on the other slab, and the other is 5 mm away."""
    true, predicted = box((6, 44, 44), (2, 2, 2), (1, 40, 40)), box((6, 44, 44), (3, 2, 2), (1, 40, 40))
    (found,) = surface_scores(predicted, true, 2, (5.0, 1.0, 1.0), 4.9)
    (all_within,) = surface_scores(predicted, true, 2, (5.0, 1.0, 1.0), 5.0)
    assert found.surface_dice == pytest.approx(0.5, abs=1e-6)
    assert all_within.surface_dice == 1


@pytest.mark.parametrize("seed", range(4))
def test_hausdorff_distance_is_that_of_scipy_for_several_labels(seed: int) -> None:
    rng, spacing = np.random.default_rng(seed), (3.6, 0.6, 0.8)
    true, predicted = np.zeros((2, 9, 24, 25), np.uint8)
    for label in (1, 2, 3):
        for labels in (true, predicted):
            start, size = rng.integers(0, (4, 12, 12)), rng.integers(2, (5, 12, 12))
            labels[box(labels.shape, tuple(start), tuple(size)) > 0] = label
    found = surface_scores(predicted, true, 4, spacing, 2.0)
    present = [k for k in (1, 2, 3) if (true == k).any() and (predicted == k).any()]
    assert present
    for k in present:
        assert found[k - 1].hausdorff95 == pytest.approx(
            reference_hausdorff(predicted == k, true == k, spacing), rel=1e-5
        )


def test_empty_structures() -> None:
    """Of four structures one is found, one missed, one spurious, one absent."""
    true = box((4, 12, 12), (0, 1, 1), (2, 3, 3), 1) + box((4, 12, 12), (0, 6, 6), (2, 3, 3), 2)
    predicted = box((4, 12, 12), (0, 1, 1), (2, 3, 3), 1) + box((4, 12, 12), (2, 6, 6), (2, 3, 3), 3)
    found = surface_scores(predicted, true, 5, (1.0, 1.0, 1.0), 1.0)
    assert [one.outcome for one in found] == ["found", "missed", "spurious", "absent"]
    assert found[0] == SurfaceScore("found", 0.0, 1.0, 1.0)
    assert [one.hausdorff95 for one in found[1:3]] == [math.inf, math.inf]
    assert [one.surface_dice for one in found[1:3]] == [0, 0]
    assert [one.dice for one in found[1:3]] == [0, 0]
    assert all(map(math.isnan, (found[3].hausdorff95, found[3].surface_dice, found[3].dice)))


def test_a_volume_of_one_slice_is_an_image() -> None:
    """In three dimensions every voxel of it would be surface."""
    true, predicted = box((1, 20, 20), (0, 4, 4), (1, 9, 9)), box((1, 20, 20), (0, 4, 6), (1, 9, 9))
    spacing = (9.0, 0.5, 0.5)
    flat = surface_scores(predicted[0], true[0], 2, spacing[1:], 0.2)
    assert surface_scores(predicted, true, 2, spacing, 0.2) == flat
    assert flat[0].hausdorff95 == pytest.approx(1.0)


@pytest.mark.parametrize(("shape", "spacing"), [((3, 4, 4), (1.0, 1.0, 1.0)), ((4, 4, 5), (1.0, 1.0)), ((4,), (1.0,))])
def test_shapes_must_fit(shape: tuple[int, ...], spacing: tuple[float, ...]) -> None:
    with pytest.raises(ShapeError, match="must be two"):
        surface_scores(np.zeros(shape, np.uint8), np.zeros((4, 4, 5)[-len(shape) :], np.uint8), 2, spacing, 1.0)


VALUES = [(2.0, 0.9, 0.8), (4.0, 0.7, 0.6), (9.0, 0.2, 0.4)]
FOUND = [SurfaceScore("found", distance, surface, dice) for distance, surface, dice in VALUES]
MISSED, SPURIOUS = SurfaceScore("missed", math.inf, 0.0, 0.0), SurfaceScore("spurious", math.inf, 0.0, 0.0)
ABSENT = SurfaceScore("absent", math.nan, math.nan, math.nan)


def scored(
    scores: list[SurfaceScore], patients: str, structure: str = "gland", unit: str = "mm"
) -> list[StructureScore]:
    places = enumerate(zip(patients, scores, strict=True))
    return [StructureScore(f"case {k}", patient, f"{k}.nii", structure, unit, one) for k, (patient, one) in places]


def test_summary_counts_what_has_no_distance() -> None:
    """Mean distance of the three found, (2 + 4 + 9) / 3, s = sqrt(13), t(2) = 4.302653: 5 -+ 8.957, cut at 0."""
    (found,) = summaries(scored([*FOUND, MISSED, SPURIOUS, ABSENT], "abcdef"))
    assert (found.files, found.patients) == (6, 6)
    assert (found.missed, found.spurious, found.absent) == (1, 1, 1)
    assert found.hausdorff95 == pytest.approx(5)
    assert found.hausdorff95_interval == pytest.approx((0, 5 + 4.302653 * math.sqrt(13 / 3)), rel=1e-6)
    assert found.surface_dice == pytest.approx(1.8 / 5)
    low, high = found.surface_dice_interval
    assert 0 < low < found.surface_dice < high < 1
    assert found.dice == pytest.approx(1.8 / 5) and found.dice_interval[0] < found.dice < found.dice_interval[1]


def test_summary_of_patients_structures_and_units() -> None:
    """Two files of each of three patients are three patients; one patient has no interval, nothing has no mean."""
    (single,) = summaries(scored(FOUND, "abc"))
    (double,) = summaries(scored([*FOUND, *FOUND], "abcabc"))
    assert double.hausdorff95_interval == pytest.approx(single.hausdorff95_interval)
    assert double.surface_dice_interval == pytest.approx(single.surface_dice_interval)
    (alone,) = summaries(scored(FOUND, "aaa"))
    assert alone.hausdorff95 == pytest.approx(5) and np.isnan(alone.hausdorff95_interval).all()
    assert np.isnan(alone.surface_dice_interval).all()
    (nothing,) = summaries(scored([ABSENT, ABSENT], "ab"))
    assert math.isnan(nothing.hausdorff95) and math.isnan(nothing.surface_dice) and math.isnan(nothing.dice)
    assert nothing.absent == 2
    several = summaries([*scored(FOUND, "abc"), *scored(FOUND, "abc", "zone"), *scored(FOUND, "abc", unit="pixels")])
    assert [(one.structure, one.unit) for one in several] == [("gland", "mm"), ("zone", "mm"), ("gland", "pixels")]
    assert all(isinstance(one, StructureSummary) and one.files == 3 for one in several)
