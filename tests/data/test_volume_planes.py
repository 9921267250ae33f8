"""Three planes of a volume on one sheet: where they are taken, which way they are turned, and their proportions."""

import numpy as np
import pytest

from harmofl.data.volume_planes import place_of_planes, sheets_of, three_planes
from harmofl.data.volume_split import VolumeSplit

CUBES = (1.0, 1.0, 1.0)


def test_planes_go_through_the_largest_cut_of_the_structure() -> None:
    labels = np.zeros((5, 6, 7), np.uint8)
    labels[1, 2, 3] = 2
    labels[3, 1:5, 4] = 1  # four voxels to the right: the most in D = 3 and in W = 4
    labels[4, 2, 5] = 1
    assert place_of_planes(labels) == (3, 2, 4)
    assert place_of_planes(np.zeros((5, 6, 7), np.uint8)) == (2, 3, 3)


def test_head_and_front_are_up_and_the_right_is_left() -> None:
    """Axes grow upwards, to the right and to the front; the last voxel of an axis is at its end."""
    volume = np.zeros((3, 4, 5))
    volume[1, 3, 4] = 1  # axial: to the right and front
    volume[2, 3, 2] = 2  # coronal: up and to the right
    volume[2, 1, 4] = 3  # sagittal: up and to the front
    sheet = three_planes(volume, (1, 1, 2), CUBES)
    assert sheet.shape == (5 + 3, 4 + 5)
    assert [tuple(np.argwhere(sheet == k)[0]) for k in (1, 2, 3)] == [(0, 0), (5, 0), (5, 4)]
    assert np.count_nonzero(sheet) == 3 and not sheet[:5, 4:].any()


def test_sides_are_in_millimetres() -> None:
    volume = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    sheet = three_planes(volume, (0, 0, 0), (3.0, 1.0, 2.0))
    assert sheet.shape == (4 * 2 + 2 * 3, 3 + 4 * 2)
    assert set(np.unique(sheet)) <= set(range(24))
    np.testing.assert_array_equal(sheet[:8, :3], volume[0].T[::-1, ::-1].repeat(2, axis=0))
    np.testing.assert_array_equal(sheet[8:, :3], volume[:, :, 0][::-1, ::-1].repeat(3, axis=0))


@pytest.mark.parametrize("spacing", [CUBES, (5.0, 0.5, 0.5)])
def test_a_sheet_of_a_large_volume_is_small(spacing: tuple[float, float, float]) -> None:
    sheet = three_planes(np.zeros((200, 700, 600), np.uint8), (0, 0, 0), spacing)
    assert 500 < max(sheet.shape) <= 514


def test_sheets_of_a_split_have_one_size() -> None:
    shapes = [(3, 4, 5), (2, 6, 3)]
    volumes = tuple(np.full(shape, 0.5, np.float16) for shape in shapes)
    labels = tuple(np.zeros(shape, np.uint8) for shape in shapes)
    split = VolumeSplit(volumes, labels, ("a", "b"), spacing=(2.0, 1.0, 1.0))
    sheets = sheets_of(split.images, split)
    assert sheets.shape == (2, 11, 9) and sheets.dtype == np.float16
    np.testing.assert_array_equal(sheets[1, :7, :9], three_planes(volumes[1], (1, 3, 1), split.spacing))
    assert not sheets[1, 7:].any()
