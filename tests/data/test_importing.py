import errno
import os

import numpy as np
import pytest
from folders_on_disk import (
    import_refused,
    mask,
    photograph,
    same_arrays,
    save,
    save_volume,
    write_classes,
    write_masks,
    write_metadata,
)

from harmofl.data import SPLITS, open_federation
from harmofl.data.layout.image_table import Columns
from harmofl.data.manifest import read_info
from harmofl.errors import ConfigError, DataError, StorageError
from harmofl.ingest import import_federation


def write_volumes(root):
    for i in range(4):
        voxels = np.random.default_rng(i).random((4, 4, 3))
        save_volume(root / "a" / "images" / f"v{i}.nii.gz", voxels)
        save_volume(root / "a" / "labels" / f"v{i}.nii.gz", (voxels > 0.5).astype(np.uint8))
    return root


@pytest.mark.parametrize("write", [write_masks, write_classes, write_volumes])
def test_round_trip_equals_direct_opening(tmp_path, write):
    source, target = write(tmp_path / "source"), tmp_path / "target"
    info = import_federation(source, target, seed=3, origin="here", licence="CC0")
    assert info == read_info(target)
    assert (info.name, info.origin, info.licence) == ("target", "here", "CC0")
    same_arrays(open_federation(source, seed=3), open_federation(target))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "target"]


def test_files_are_copied_unchanged(tmp_path):
    source = write_classes(tmp_path / "source")
    import_federation(source, tmp_path / "target")
    for path in source.glob("*/*/*.png"):
        copied = tmp_path / "target" / path.parts[-3] / "images" / path.parts[-2] / path.name
        assert copied.read_bytes() == path.read_bytes()


def test_options_are_written_down(tmp_path):
    source = write_masks(tmp_path / "source", images=10)
    options = {"name": "n", "size": (4, 6), "channels": 1, "fractions": (0.4, 0.3, 0.3)}
    info = import_federation(source, tmp_path / "target", **options)
    assert (info.name, info.size, info.channels) == ("n", (4, 6), 1)
    train = open_federation(tmp_path / "target").sites[0].train
    assert train.images.shape == (4, 1, 4, 6)


def test_named_columns(tmp_path):
    source = write_masks(tmp_path / "source", ("a",), images=6)
    rows = [{"file": f"p{i}.png", "who": f"w{i // 2}", "fold": SPLITS[i // 2]} for i in range(6)]
    write_metadata(source, rows)
    import_federation(source, tmp_path / "t", columns=Columns(split="fold", patient="who"))
    site = open_federation(tmp_path / "t").sites[0]
    assert [set(site.split(name).cases) for name in SPLITS] == [{"w0"}, {"w1"}, {"w2"}]


def test_named_column_that_is_missing(tmp_path):
    source = write_masks(tmp_path / "source", ("a",))
    with pytest.raises(DataError, match=r"column 'fold' needs a metadata\.csv, but there is none"):
        import_federation(source, tmp_path / "t", columns=Columns(split="fold"))
    write_metadata(source, [{"file": "p0.png", "split": "train"}])
    with pytest.raises(DataError, match="column 'fold' is missing; the columns are file, split"):
        import_federation(source, tmp_path / "t", columns=Columns(split="fold"))


def test_columns_that_would_not_be_heeded(tmp_path):
    source = write_masks(tmp_path / "source")
    with pytest.raises(ConfigError, match="columns of sites, images and targets are only for a table"):
        import_federation(source, tmp_path / "fed", columns=Columns(image="x"))
    import_federation(source, tmp_path / "fed")
    with pytest.raises(ConfigError, match="has manifests with patients and splits"):
        import_federation(tmp_path / "fed", tmp_path / "again", fractions=(0.5, 0.2, 0.3))


def test_existing_target_is_refused(tmp_path):
    source = write_masks(tmp_path / "source")
    (tmp_path / "target").mkdir()
    import_refused(source, tmp_path / "target", "exists already; choose another folder")


def test_bad_data_leaves_nothing(tmp_path):
    source = write_masks(tmp_path / "source")
    save(source / "b/masks/p5.png", mask(5, (9, 9)))
    import_refused(source, tmp_path / "target", r"b/images/p5\.png: mask p5\.png is 9x9")
    with pytest.raises(ConfigError, match="fractions"):
        import_federation(source, tmp_path / "target", fractions=(1, 1, 1))
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    source = write_masks(tmp_path / "source")
    monkeypatch.setattr("harmofl.ingest.importing.shutil.copyfile", full)
    with pytest.raises(StorageError, match=r"target: could not be written \(No space left on device\)"):
        import_federation(source, tmp_path / "target")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_two_images_for_one_place_are_refused(tmp_path):
    source = tmp_path / "source"
    names = ["x.png", "images/x.png", "y.png"]
    for i, name in enumerate(names):
        save(source / "a" / name, photograph(i))
    rows = [{"file": name, "label": "uv"[i % 2], "patient": str(i), "split": SPLITS[i]} for i, name in enumerate(names)]
    write_metadata(source, rows)
    import_refused(source, tmp_path / "target", "would be copied to the same")
    assert not (tmp_path / "target").exists()


@pytest.mark.shared("data/hippocampus")
def test_real_volumes_round_trip(tmp_path, shared_path):
    source = shared_path / "data" / "hippocampus"
    import_federation(source, tmp_path / "hospital", size=(32, 32))
    direct, imported = open_federation(source, size=(32, 32)), open_federation(tmp_path / "hospital")
    same_arrays(direct, imported)
    assert imported.info.size == (32, 32)


def test_names_and_order_of_classes(tmp_path):
    source = tmp_path / "in"
    write_masks(source)
    assert import_federation(source, tmp_path / "a", classes=("rest", "cell")).classes == ("rest", "cell")
    with pytest.raises(ConfigError, match="2 different names, for background, foreground"):
        import_federation(source, tmp_path / "c", classes=("cell",))
    with pytest.raises(ConfigError, match="2 different names"):
        import_federation(source, tmp_path / "c", classes=("cell", "cell"))


@pytest.mark.shared("data/bloodcells")
def test_real_cells_keep_their_splits_and_may_be_reordered(tmp_path, shared_path):
    order = ("neutrophil", "lymphocyte", "monocyte", "eosinophil")
    import_federation(shared_path / "data" / "bloodcells", tmp_path / "cells", classes=order)
    federation = open_federation(tmp_path / "cells")
    assert federation.info.classes == order
    assert [sum(len(site.split(name)) for name in SPLITS) for site in federation.sites] == [800, 339, 298]
    plain = open_federation(shared_path / "data" / "bloodcells")
    for one, other in zip(federation.sites, plain.sites, strict=True):
        assert (one.test.images == other.test.images).all()
        names = [[site.classes[k] for k in site.test.targets] for site in (one, other)]
        assert names[0] == names[1]
    with pytest.raises(ConfigError, match="must be eosinophil, lymphocyte, monocyte, neutrophil in any order"):
        import_federation(shared_path / "data" / "bloodcells", tmp_path / "x", classes=("a", "b", "c", "d"))
