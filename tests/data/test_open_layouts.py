import numpy as np
import pytest
import torch
from folders_on_disk import (
    mask,
    photograph,
    save,
    save_volume,
    write_classes,
    write_masks,
    write_metadata,
    write_tree,
)
from PIL import Image

from harmofl.data import SPLITS, Split, describe, open_federation


def test_manifest_tree(tmp_path):
    federation = open_federation(write_tree(tmp_path))
    (site,) = federation.sites
    assert [len(site.split(name)) for name in SPLITS] == [3, 1, 2]
    assert site.train.cases == ("p0", "p1", "p2")
    np.testing.assert_array_equal(site.val.images[0], np.moveaxis(photograph(3), 2, 0))
    np.testing.assert_array_equal(site.val.targets[0], mask(3) // 255)
    assert site.train.images.dtype == np.uint8
    assert site.train.targets.dtype == np.uint8
    assert federation.info.size == (8, 8)


def test_masks_folder_is_split_by_patient(tmp_path):
    federation = open_federation(write_masks(tmp_path, images=10))
    assert [site.name for site in federation.sites] == ["a", "b"]
    assert federation.info.classes == ("background", "foreground")
    assert federation.info.channels == 3
    assert [len(federation.sites[0].split(name)) for name in SPLITS] == [7, 1, 2]


def test_another_seed_splits_differently(tmp_path):
    write_masks(tmp_path, images=10)
    cases = [open_federation(tmp_path, seed=seed).sites[0].train.cases for seed in (0, 0, 1)]
    assert cases[0] == cases[1] != cases[2]


def test_class_folders(tmp_path):
    write_classes(tmp_path)
    federation = open_federation(tmp_path)
    assert federation.info.task == "classification"
    assert federation.info.classes == ("cat", "dog")
    site = federation.sites[0]
    assert site.train.targets.dtype == np.int64
    for case, target in zip(site.train.cases, site.train.targets, strict=True):
        assert case.startswith(federation.info.classes[target])


def test_classes_are_the_union_over_sites(tmp_path):
    write_classes(tmp_path)
    for i in range(4):
        save(tmp_path / "b" / "ant" / f"ant{i}.png", photograph(50 + i))
    assert open_federation(tmp_path).sites[0].classes == ("ant", "cat", "dog")


def test_metadata_tells_split_group_and_label(tmp_path):
    names = [f"x{i}.png" for i in range(6)]
    for i, name in enumerate(names):
        save(tmp_path / "a" / name, photograph(i))
    rows = [
        {"site": "a", "file": name, "label": "AB"[i % 2], "group": f"g{i // 2}", "split": SPLITS[i // 2]}
        for i, name in enumerate(names)
    ]
    write_metadata(tmp_path, rows)
    site = open_federation(tmp_path).sites[0]
    assert site.classes == ("A", "B")
    assert [site.split(name).cases for name in SPLITS] == [("g0", "g0"), ("g1", "g1"), ("g2", "g2")]
    assert site.train.targets.tolist() == [0, 1]


@pytest.mark.parametrize("prefix", ["", "images/"])
def test_metadata_files_relative_to_site_or_to_images(tmp_path, prefix):
    write_masks(tmp_path, ("a",), images=4)
    rows = [{"file": f"{prefix}p{i}.png", "split": SPLITS[i]} for i in range(3)]
    write_metadata(tmp_path, rows)
    site = open_federation(tmp_path).sites[0]
    assert [site.split(name).cases for name in SPLITS] == [("p0",), ("p1",), ("p2",)]


def test_metadata_without_split_keeps_patients_together(tmp_path):
    write_masks(tmp_path, ("a",), images=12)
    write_metadata(tmp_path, [{"file": f"p{i}.png", "patient": f"q{i // 3}"} for i in range(12)])
    site = open_federation(tmp_path).sites[0]
    sides = [set(site.split(name).cases) for name in SPLITS]
    assert set.union(*sides) == {"q0", "q1", "q2", "q3"}
    assert sum(map(len, sides)) == 4


def test_root_with_images_and_labels_is_one_site(tmp_path):
    root = tmp_path / "ward"
    write_masks(root, ("x",), images=4)
    (root / "x" / "images").rename(root / "images")
    (root / "x" / "masks").rename(root / "labels")
    assert [site.name for site in open_federation(root).sites] == ["ward"]


def test_mask_may_have_another_suffix(tmp_path):
    write_masks(tmp_path, ("a",), images=4)
    for path in list((tmp_path / "a" / "masks").iterdir()):
        save(path.with_suffix(".tif"), np.array(Image.open(path)))
        path.unlink()
    assert open_federation(tmp_path).sites[0].train.targets.max() == 1


def test_label_maps_name_their_classes(tmp_path):
    write_masks(tmp_path, ("a",), images=4)
    save(tmp_path / "a" / "masks" / "p0.png", np.full((8, 8), 2, np.uint8))
    for i in (1, 2, 3):
        save(tmp_path / "a" / "masks" / f"p{i}.png", mask(i) // 255)
    assert open_federation(tmp_path).info.classes == ("class_0", "class_1", "class_2")


def test_resizes_bilinear_and_nearest(tmp_path):
    site = open_federation(write_tree(tmp_path, size=(4, 4)), size=(16, 12)).sites[0]
    assert site.train.images.shape == (3, 3, 16, 12)
    want = Image.fromarray(photograph(0)).resize((12, 16), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(site.train.images[0], np.moveaxis(np.array(want), 2, 0))
    want = Image.fromarray(mask(0)).resize((12, 16), Image.Resampling.NEAREST)
    np.testing.assert_array_equal(site.train.targets[0], np.array(want) // 255)


def test_channels_by_request(tmp_path):
    site = open_federation(write_tree(tmp_path), channels=1).sites[0]
    want = np.array(Image.fromarray(photograph(0)).convert("L"))
    np.testing.assert_array_equal(site.train.images[0, 0], want)


def test_grey_files_have_one_channel_unless_asked(tmp_path):
    write_masks(tmp_path, ("a",), images=4)
    for path in (tmp_path / "a" / "images").iterdir():
        Image.open(path).convert("L").save(path)
    assert open_federation(tmp_path).info.channels == 1
    three = open_federation(tmp_path, channels=3).sites[0].train.images
    np.testing.assert_array_equal(three[:, 0], three[:, 2])


@pytest.mark.parametrize("mode", ["P", "RGBA", "CMYK"])
def test_colour_modes_become_rgb(tmp_path, mode):
    write_masks(tmp_path, ("a",), images=4)
    path = tmp_path / "a" / "images" / "p0.png"
    image = Image.open(path).convert(mode)
    image.save(path.with_suffix(".tif"))
    path.unlink()
    site = open_federation(tmp_path).sites[0]
    found = {case: image for name in SPLITS for case, image in _items(site.split(name))}
    np.testing.assert_array_equal(found["p0"], np.moveaxis(np.array(image.convert("RGB")), 2, 0))


def _items(split):
    return zip(split.cases, split.images, strict=True)


def test_sixteen_bit_becomes_float_for_the_whole_site(tmp_path):
    write_masks(tmp_path, ("a",), images=4)
    for i in range(3):
        deep = np.full((8, 8), 1000 * (i + 1), np.uint16)
        save(tmp_path / "a" / "images" / f"p{i}.png", deep)
    site = open_federation(tmp_path, channels=1).sites[0]
    found = {case: image for name in SPLITS for case, image in _items(site.split(name))}
    assert {image.dtype for image in found.values()} == {np.dtype(np.float32)}
    assert found["p1"].max() == pytest.approx(2000 / 65535)
    assert 0.5 < found["p3"].max() <= 1


def test_batch_is_float_in_fresh_memory():
    images = np.array([0, 51, 255], np.uint8).reshape(3, 1, 1, 1)
    split = Split(images, np.array([0, 1, 1]), ("x", "y", "z"))
    batch = split.batch([2, 1, 1])
    assert len(split) == 3
    assert batch.images.dtype == torch.float32
    assert batch.targets.dtype == torch.int64
    torch.testing.assert_close(batch.images.flatten(), torch.tensor([1, 0.2, 0.2]))
    assert batch.targets.tolist() == [1, 1, 1]
    batch.images.zero_()
    assert images[2, 0, 0, 0] == 255


def test_unknown_split_name(tmp_path):
    with pytest.raises(KeyError, match="train, val or test"):
        open_federation(write_tree(tmp_path)).sites[0].split("all")


def test_describe_counts_classes(tmp_path):
    rows = describe(open_federation(write_classes(tmp_path)))
    assert len(rows) == 6
    assert rows[0]["size"] == "3x8x8"
    assert sum(int(row["cat"]) for row in rows) == 12
    assert all(int(row["cat"]) + int(row["dog"]) == int(row["images"]) for row in rows)


def test_progress_is_told(tmp_path):
    told = []
    open_federation(write_tree(tmp_path), progress=lambda *step: told.append(step))
    assert told == [("a", done, 6) for done in range(1, 7)]


def test_volumes_at_the_root(tmp_path):
    for i in range(3):
        save_volume(tmp_path / "images" / f"v{i}.nii.gz", np.random.default_rng(i).random((4, 5, 6)))
        save_volume(tmp_path / "labels" / f"v{i}.nii.gz", np.full((4, 5, 6), i % 3, np.uint8))
    federation = open_federation(tmp_path)
    assert federation.info.classes == ("class_0", "class_1", "class_2")
    assert federation.info.size == (4, 5)
    assert {len(federation.sites[0].split(name)) for name in SPLITS} == {6}


@pytest.mark.shared("data/nuclei")
def test_real_nuclei(shared_path):
    federation = open_federation(shared_path / "data" / "nuclei", size=(32, 32))
    counts = {s.name[0]: sum(len(s.split(name)) for name in SPLITS) for s in federation.sites}
    assert counts == {"A": 160, "B": 90, "C": 180, "D": 69, "E": 38, "F": 128}
    assert federation.info.classes == ("background", "foreground")
    assert set(np.unique(federation.sites[0].train.targets)) == {0, 1}
    assert len(set(federation.sites[5].test.cases)) == 3


@pytest.mark.shared("data/bloodcells")
def test_real_bloodcells(shared_path):
    federation = open_federation(shared_path / "data" / "bloodcells")
    assert federation.info.classes == ("eosinophil", "lymphocyte", "monocyte", "neutrophil")
    assert [len(s.train) + len(s.val) + len(s.test) for s in federation.sites] == [800, 339, 298]


@pytest.mark.shared("data/hippocampus")
def test_real_hippocampus(shared_path):
    federation = open_federation(shared_path / "data" / "hippocampus", size=(32, 32), channels=3)
    (site,) = federation.sites
    assert site.train.images.shape[1:] == (3, 32, 32)
    assert [len(set(site.split(name).cases)) for name in SPLITS] == [42, 6, 12]
