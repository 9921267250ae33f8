"""Published downloads, in their exact layouts, made into federations."""

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import published_trees as trees
import pytest
from folders_on_disk import patients_by_split, texts
from PIL import Image

from harmofl import open_federation
from harmofl.data.manifest import read_info, read_manifest
from harmofl.errors import ConfigError, DataError, RunError, StorageError
from harmofl.ingest.datasets import PUBLISHED, camelyon17, monusac2020
from harmofl.ingest.prepare import look_through, prepare, wishes_for
from harmofl.utils.atomic_files import locked


def made(name: str, download: Path, target: Path, **choices) -> Path:
    prepare(look_through(name, download, wishes_for(name, **choices)), target, partial=True)
    return target


def patients_of(folder: Path) -> dict[str, dict[str, set[str]]]:
    return {path.parent.name: patients_by_split(path.parent) for path in folder.glob("*/manifest.csv")}


def test_camelyon17_by_patient(tmp_path):
    folder = made("camelyon17", trees.camelyon17(tmp_path), tmp_path / "fed")
    assert not texts(folder, "error")
    federation = open_federation(folder)
    assert [site.name for site in federation.sites] == [f"hospital_{k}" for k in range(5)]
    site = federation.sites[0]
    assert site.train.images.shape[1:] == (3, 96, 96)
    assert site.classes == ("normal", "tumor")
    assert sum(len(s) for s in (site.train, site.val, site.test)) == 20
    for sides in patients_of(folder).values():
        assert not set.intersection(sides["train"], sides["test"])
        assert not set.intersection(sides["train"], sides["val"])


def test_camelyon17_labels_are_the_tables(tmp_path):
    folder = made("camelyon17", trees.camelyon17(tmp_path), tmp_path / "fed")
    for record in read_manifest(folder / "hospital_1"):
        assert record.target == ("tumor" if int(record.image.split("_x_")[1].split("_")[0]) // 32 % 2 else "normal")


def test_camelyon17_as_wilds_splits_it(tmp_path):
    folder = made("camelyon17", trees.camelyon17(tmp_path), tmp_path / "fed", splits="wilds")
    assert not texts(folder, "error")
    assert read_info(folder).split == "images"
    splits = {site: Counter(r.split for r in read_manifest(folder / site)) for site in patients_of(folder)}
    assert splits["hospital_0"] == {"train": 10, "val": 5, "test": 5}
    assert set(splits["hospital_1"]) == set(splits["hospital_2"]) == {"test"}
    federation = open_federation(folder, cache=tmp_path / "cache")
    for _ in range(2):
        assert len(federation.sites[1].train) == 0 and federation.sites[1].train.images.shape == (0, 3, 96, 96)
        federation = open_federation(folder, cache=tmp_path / "cache")


def test_camelyon17_names_what_is_missing_and_extra(tmp_path, monkeypatch):
    root = trees.camelyon17(tmp_path)
    folder = root / "patches/patient_004_node_4"
    (folder / "patch_patient_004_node_4_x_0_y_4.png").rename(folder / "other.png")
    (root / "patches/patient_099_node_0").mkdir()
    (root / "patches/.DS_Store").write_bytes(b"x")
    (folder / ".DS_Store").write_bytes(b"x")
    counts = {f"hospital_{k}": 20 for k in range(5)}
    monkeypatch.setattr(camelyon17, "ABOUT", replace(camelyon17.ABOUT, counts=counts))
    download = look_through("camelyon17", tmp_path)
    assert download.problems == (
        "missing: patches/patient_004_node_4/patch_patient_004_node_4_x_0_y_4.png",
        "extra: patches/patient_004_node_4/other.png",
        "extra: patches/patient_099_node_0",
        "count: hospital_0 has 19 patches, a complete download has 20",
    )
    with pytest.raises(DataError, match=r"missing: patches.* \(and 3 more\); download the rest, or .*--partial"):
        prepare(download, tmp_path.parent / "fed")
    assert not (tmp_path.parent / "fed").exists()


def test_a_patch_that_cannot_be_read_costs_no_other(tmp_path):
    root = trees.camelyon17(tmp_path / "in")
    patches = sorted((root / "patches/patient_004_node_4").glob("*.png"))
    patches[0].write_bytes(b"\x89PNG")
    trees.save(patches[1], trees.noise(0, 32, 32, 3))
    download, told = look_through("camelyon17", root), []
    for _ in range(2):
        with pytest.raises(DataError, match=r"every file must be readable, but patches/patient_004_node_4: .*1 more"):
            prepare(replace(download, problems=()), tmp_path / "fed")
    prepare(download, tmp_path / "fed", partial=True, told=told.append)
    assert [patches[k].name in line for k, line in enumerate(told)] == [True, True]
    assert len(read_manifest(tmp_path / "fed/hospital_0")) == 18


def test_a_complete_prostate_download(tmp_path):
    download = look_through("prostate", trees.prostate(tmp_path / "in", trees.WHOLE_PROSTATE))
    assert download.problems == ()
    info = prepare(download, tmp_path / "fed")
    assert (info.channels, info.size, info.slices) == (3, (384, 384), "foreground")
    assert sorted(patients_of(tmp_path / "fed")) == ["BIDMC", "BMC", "HK", "I2CVB", "RUNMC", "UCL"]
    for site, top in (("BMC", 1), ("HK", 1)):
        record = read_manifest(tmp_path / "fed" / site)[0]
        mask = nibabel.load(tmp_path / "fed" / site / record.target)
        assert mask.get_fdata().max() == top
        assert mask.shape == (12, 12, 5)
    federation = open_federation(tmp_path / "fed", size=(24, 24))
    assert federation.sites[0].train.images.shape[1:] == (3, 24, 24)
    assert len(federation.sites[0].train) == 3 * len(set(federation.sites[0].train.cases))


def test_prostate_without_a_mask(tmp_path):
    root = trees.prostate(tmp_path / "in", {"HK": range(38, 50)})
    (root / "Processed_data_nii/HK/Case40_segmentation.nii.gz").unlink()
    problems = look_through("prostate", root).problems
    assert "missing: HK/Case40_segmentation.nii.gz" in problems
    assert "count: HK has 11 volumes, a complete download has 12" in problems
    assert "count: UCL has 0 volumes, a complete download has 13" in problems


def test_a_prostate_volume_that_ends_too_early(tmp_path):
    root = trees.prostate(tmp_path / "in", {"HK": range(38, 42)})
    volume = root / "Processed_data_nii/HK/Case39.nii.gz"
    volume.write_bytes(volume.read_bytes()[:-200])
    told = []
    prepare(look_through("prostate", root), tmp_path / "fed", partial=True, told=told.append)
    assert len(told) == 1 and "Case39.nii.gz: cannot be read" in told[0]
    assert len(read_manifest(tmp_path / "fed/HK")) == 3


def test_monusac_polygons_tiles_and_sites(tmp_path):
    download = look_through("monusac2020", trees.monusac(tmp_path / "in"), wishes_for("monusac2020", tile=16))
    assert download.problems == ()
    prepare(download, tmp_path / "fed")
    assert sorted(patients_of(tmp_path / "fed")) == ["A", "B", "C", "D"]
    assert not texts(tmp_path / "fed", "error")
    sites = monusac2020.site_of_code()
    assert sites["73"] == sites["E2"] == sites["G9"]  # one institution
    sizes = Counter(sites[patient.split("-")[0]] for patient in monusac2020._PATIENTS.split())
    assert sum(sizes.values()) == 69 and max(sizes.values()) - min(sizes.values()) <= 1
    name = "TCGA-49-6743-01Z-00-DX1_1"
    mask = np.asarray(Image.open(tmp_path / "fed" / sites["49"] / f"masks/{name}_y0_x0.png"))
    assert mask.shape == (16, 16)
    assert mask[5, 5] == 255 and mask[1, 1] == 0 and mask[12, 5] == 0
    twice = sorted((tmp_path / "fed").glob("*/images/TCGA-2Z-A9JG-*_y0_x0.png"))
    assert [path.name[23:] for path in twice] == ["_1_again_y0_x0.png", "_1_y0_x0.png"]
    ambiguous = "TCGA-50-6591-01Z-00-DX1_1"
    assert not np.asarray(Image.open(tmp_path / "fed" / sites["50"] / f"masks/{ambiguous}_y0_x0.png")).any()


def test_an_incomplete_monusac_names_the_patients(tmp_path):
    root = trees.monusac(tmp_path / "in")
    for path in root.rglob("TCGA-UZ-A9PU-*_1.*"):
        path.unlink()
    assert look_through("monusac2020", root).problems == ("missing: patient TCGA-UZ-A9PU",)


def test_the_papers_six_nuclei_clients(tmp_path):
    for make, name in ((trees.monusac, "one"), (trees.monuseg, "two"), (trees.tnbc, "three")):
        make(tmp_path / "in" / name)
    download = look_through("nuclei", tmp_path / "in", wishes_for("nuclei", tile=32))
    assert download.problems == ()
    prepare(download, tmp_path / "fed")
    assert sorted(patients_of(tmp_path / "fed")) == ["A", "B", "C", "D", "E", "F"]
    assert not texts(tmp_path / "fed", "error")
    federation = open_federation(tmp_path / "fed")
    assert federation.sites[4].train.images.shape[1:] == (3, 32, 32)
    assert len(patients_of(tmp_path / "fed")["F"]["train"]) == 8  # of 11, 2 of them tested


def test_nuclei_without_one_of_its_parts(tmp_path):
    trees.tnbc(tmp_path)
    problems = look_through("nuclei", tmp_path).problems
    assert "missing: MoNuSAC 2020" in problems and "missing: MoNuSeg 2018" in problems


def test_tnbc_names_regions_that_are_missing_and_folders_of_a_later_release(tmp_path):
    root = trees.tnbc(tmp_path)
    (root / "TNBC_NucleiSegmentation/GT_04/04_2.png").unlink()
    trees.save(root / "TNBC_NucleiSegmentation/Slide_12/12_1.png", trees.noise(0, 8, 8, 4))
    assert look_through("tnbc", root).problems == (
        "missing: GT_04/04_2.png",
        "missing: 1 of 8 in Slide_04",
        "extra: TNBC_NucleiSegmentation/Slide_12/12_1.png",
        "count: tnbc has 49 images, a complete download has 50",
    )


def test_monuseg_pairs_wherever_they_lie(tmp_path):
    download = look_through("monuseg2018", trees.monuseg(tmp_path / "in"))
    assert download.problems == ()
    prepare(download, tmp_path / "fed")
    mask = np.asarray(Image.open(next((tmp_path / "fed/monuseg/masks").iterdir())))
    assert mask.shape == (256, 256) and mask[10, 10] == 255 and mask[30, 30] == 0


def test_dsb2018_sites_are_batches(tmp_path):
    folder = made("dsb2018", trees.dsb2018(tmp_path / "in"), tmp_path / "fed", tile=16)
    assert sorted(patients_of(folder)) == [
        *("fluorescence_16x16", "fluorescence_16x24", "other", "tissue_purple", "tissue_white")
    ]
    assert not texts(folder, "error")
    mask = np.asarray(Image.open(next((folder / "fluorescence_16x16/masks").iterdir())))
    assert mask.sum() == 255 * 3 * 6
    assert "missing: 623 of 670 images" in look_through("dsb2018", tmp_path / "in").problems


def test_midog_patches_around_annotations(tmp_path):
    (tmp_path / "in").mkdir()
    folder = made("midog", trees.midog(tmp_path / "in"), tmp_path / "fed")
    assert sorted(patients_of(folder)) == ["aperio_cs2", "hamamatsu_s360", "hamamatsu_xr"]
    assert not texts(folder, "error")
    image = np.asarray(Image.open(tmp_path / "in/001.tiff"))
    patch = np.asarray(Image.open(folder / "hamamatsu_xr/images/001_002.png"))
    x, y = (50 + 100) / 2, (40 + 90) / 2  # the third box, of x 50 to 100 and y 40 to 90
    assert patch.shape == (64, 64, 3)
    assert (patch[:57] == image[int(y) - 32 : 90, int(x) - 32 : int(x) + 32]).all()
    labels = [record.target for record in read_manifest(folder / "hamamatsu_xr") if record.patient == "001"]
    assert labels == ["mitotic figure", "look-alike"] * 2


def test_medmnist_files_are_sites(tmp_path):
    (tmp_path / "in").mkdir()
    folder = made("medmnist", trees.medmnist(tmp_path / "in"), tmp_path / "fed")
    federation = open_federation(folder)
    assert [site.name for site in federation.sites] == ["organamnist", "organcmnist"]
    assert federation.info.classes[5] == "kidney-right" and federation.info.size == (28, 28)
    with np.load(tmp_path / "in/organamnist.npz") as arrays:
        assert (federation.sites[0].val.images[:, 0] == arrays["val_images"]).all()
        assert (federation.sites[0].test.targets == arrays["test_labels"][:, 0]).all()


def test_medmnist_in_colour_and_of_unknown_classes(tmp_path):
    (tmp_path / "in").mkdir()
    trees.medmnist(tmp_path / "in", ("newmnist_64",), colour=True)
    federation = open_federation(made("medmnist", tmp_path / "in", tmp_path / "fed"))
    assert federation.info.classes[-1] == "class_10"
    assert federation.sites[0].train.images.shape == (30, 3, 28, 28)


def test_medmnist_files_that_do_not_belong_together(tmp_path):
    trees.medmnist(tmp_path, ("newmnist", "organamnist"))
    with pytest.raises(DataError, match=r"same classes .* newmnist.npz and organamnist.npz differ"):
        look_through("medmnist", tmp_path)


def test_medmnist_with_several_labels_an_image(tmp_path):
    images = trees.noise(0, 5, 28, 28)
    np.savez(tmp_path / "chestmnist.npz", train_images=images, train_labels=np.ones((5, 14), dtype=np.uint8))
    with pytest.raises(DataError, match="one class, got 14 labels"):
        look_through("medmnist", tmp_path)


def test_fundus_masks_and_eyes(tmp_path):
    folder = made("fundus", trees.fundus(tmp_path / "in"), tmp_path / "fed")
    assert sorted(patients_of(folder)) == ["drishti_gs", "refuge_train", "refuge_val", "rim_one_r3"]
    assert not texts(folder, "error")
    mask = np.asarray(Image.open(folder / "refuge_train/masks/train_V0000.png"))
    assert [mask[0, 0], mask[5, 5], mask[7, 7], mask[3, 5]] == [0, 1, 2, 1]
    sides = patients_of(folder)["rim_one_r3"]
    assert not sides["train"] & sides["test"]


def test_fundus_as_published(tmp_path):
    folder = made("fundus", trees.fundus(tmp_path / "in"), tmp_path / "fed", splits="published")
    assert not texts(folder, "error")
    splits = Counter(record.split for record in read_manifest(folder / "drishti_gs"))
    assert splits == {"train": 11, "val": 1, "test": 5}


# The way of it, whatever the data set


def test_every_data_set_says_what_it_is():
    for name, dataset in PUBLISHED.items():
        about = dataset.ABOUT
        assert about.name == name
        assert about.source.startswith("https://") and about.licence and about.citation and about.layout
        assert about.splits


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_nothing_of_it(tmp_path, name):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError, match="give the folder that holds the download"):
        look_through(name, tmp_path)
    (tmp_path / "download.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"packed in download.zip, unpack that first"):
        look_through(name, tmp_path)
    with pytest.raises(DataError, match="check the path"):
        look_through(name, tmp_path / "nowhere")


def test_wishes_that_do_not_hold():
    for name, wishes, message in (
        ("imagenet", {}, "must be one of camelyon17, nuclei"),
        ("camelyon17", {"splits": "random"}, "patients or wilds"),
        ("camelyon17", {"tile": 32}, "has none"),
        ("nuclei", {"tile": 4}, "at least 16"),
        ("midog", {"tile": 0}, "for midog, whose images are cut out"),
    ):
        with pytest.raises(ConfigError, match=message):
            wishes_for(name, **wishes)


def test_an_interruption_costs_only_what_was_being_done(tmp_path, monkeypatch):
    download = look_through("tnbc", trees.tnbc(tmp_path / "in"))
    prepare(download, tmp_path / "whole", workers=1)
    from harmofl.ingest.datasets import tnbc

    done = []

    def until_the_twentieth(item, folder, wishes, convert=tnbc.convert):
        if len(done) == 20:
            raise KeyboardInterrupt
        done.append(item.name)
        return convert(item, folder, wishes)

    with monkeypatch.context() as patch:
        patch.setattr(tnbc, "convert", until_the_twentieth)
        with pytest.raises(KeyboardInterrupt):
            prepare(download, tmp_path / "fed", workers=1)
    assert not (tmp_path / "fed").exists()
    journal = tmp_path / ".fed.preparing/journal.jsonl"
    journal.write_text(journal.read_text() + '["cut off')
    (tmp_path / ".fed.preparing/tnbc/images/.stale.png.tmp").write_bytes(b"x")
    seen = []
    prepare(download, tmp_path / "fed", workers=1, progress=lambda site, k, n: seen.append((k, n)))
    assert seen[0] == (21, 50) and seen[-1] == (50, 50)
    files = {path.relative_to(tmp_path / "fed") for path in (tmp_path / "fed").rglob("*") if path.is_file()}
    assert files == {p.relative_to(tmp_path / "whole") for p in (tmp_path / "whole").rglob("*") if p.is_file()}
    for file in files - {Path("federation.toml")}:
        assert (tmp_path / "fed" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    assert not (tmp_path / ".fed.preparing").exists()


def test_other_wishes_begin_anew(tmp_path):
    root = trees.tnbc(tmp_path / "in")
    workshop = tmp_path / ".fed.preparing"
    workshop.mkdir()
    (workshop / "wishes.json").write_text(json.dumps({"name": "tnbc"}))
    (workshop / "journal.jsonl").write_text("nonsense")
    prepare(look_through("tnbc", root), tmp_path / "fed")
    assert len(read_manifest(tmp_path / "fed/tnbc")) == 50


def test_a_file_that_cannot_be_read(tmp_path):
    root = trees.tnbc(tmp_path / "in")
    (root / "TNBC_NucleiSegmentation/Slide_03/03_1.png").write_bytes(b"\x89PNG")
    download = look_through("tnbc", root)
    with pytest.raises(DataError, match=r"Slide_03/03_1.png: cannot be read .*--partial"):
        prepare(download, tmp_path / "fed")
    told = []
    prepare(download, tmp_path / "fed", partial=True, told=told.append)
    assert len(told) == 1 and "03_1.png" in told[0]
    assert len(read_manifest(tmp_path / "fed/tnbc")) == 49


def test_a_target_that_is_not_free(tmp_path):
    download = look_through("tnbc", trees.tnbc(tmp_path / "in"))
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    for target in (tmp_path, tmp_path / "link"):
        with pytest.raises(DataError, match="exists already; choose another folder to prepare to"):
            prepare(download, target)
    with pytest.raises(DataError, match=r"fed: must not be inside .*; choose another"):
        prepare(download, download.folder / "fed")
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match=r"could not be written \(Not a directory\); choose another folder"):
        prepare(download, tmp_path / "file/fed")


def test_fractions_that_do_not_hold_are_told_of_before_anything_is_converted(tmp_path):
    with pytest.raises(ConfigError, match="must be three positive numbers"):
        prepare(look_through("tnbc", trees.tnbc(tmp_path / "in")), tmp_path / "fed", fractions=(9, 9, 9))
    wilds = look_through("camelyon17", trees.camelyon17(tmp_path / "c"), wishes_for("camelyon17", splits="wilds"))
    with pytest.raises(ConfigError, match="omit them with --splits wilds"):
        prepare(wilds, tmp_path / "fed", fractions=(0.5, 0.2, 0.3), partial=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c", "in"]


def test_only_more_than_there_should_be(tmp_path):
    root = trees.tnbc(tmp_path / "in")
    trees.save(root / "TNBC_NucleiSegmentation/Slide_12/12_1.png", trees.noise(0, 8, 8, 3))
    with pytest.raises(DataError, match=r"extra: .*; remove that, or"):
        prepare(look_through("tnbc", root), tmp_path / "fed")


def test_a_fundus_tree_that_is_there_twice(tmp_path):
    root = trees.fundus(tmp_path / "in")
    once = look_through("fundus", root)
    shutil.copytree(root, tmp_path / "in/copy")
    twice = look_through("fundus", tmp_path / "in")
    assert len(twice.found.items) == len(once.found.items)
    assert len(twice.found.extra) == len(once.found.items)


def test_preparing_twice_gives_the_same_bytes(tmp_path):
    download = look_through("prostate", trees.prostate(tmp_path / "in", {"HK": range(5)}))
    for name in ("a", "b"):
        prepare(download, tmp_path / name / "fed", partial=True)
    for path in (tmp_path / "a").rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()


def test_tiles_cover_the_image():
    from harmofl.ingest.datasets.tiles import _pieces

    image, mask = trees.noise(0, 50, 33, 3), trees.noise(1, 50, 33)
    seen = np.zeros((50, 33), dtype=bool)
    for name, part, labels in _pieces(image, mask, 16):
        y, x = (int(word[1:]) for word in name[1:].split("_"))
        assert part.shape == (16, 16, 3)
        assert (part == image[y : y + 16, x : x + 16]).all() and (labels == mask[y : y + 16, x : x + 16]).all()
        seen[y : y + 16, x : x + 16] = True
    assert seen.all()
    assert [name for name, *_ in _pieces(image, mask, None)] == [""]
    (_, part, _), *_ = _pieces(image[:5, :7], mask[:5, :7], 16)
    assert part.shape == (16, 16, 3) and (part[:5, :7] == image[:5, :7]).all() and (part[5, :7] == image[4, :7]).all()


def test_two_commands_on_one_target(tmp_path):
    download = look_through("tnbc", trees.tnbc(tmp_path / "in"))
    (tmp_path / ".fed.preparing").mkdir()
    with (
        locked(tmp_path / ".fed.preparing", "preparing"),
        pytest.raises(RunError, match="another process is preparing"),
    ):
        prepare(download, tmp_path / "fed")
    prepare(download, tmp_path / "fed")


def test_medmnist_of_volumes_and_with_odd_labels(tmp_path):
    labels = np.zeros((3, 1), dtype=np.int64)
    np.savez(tmp_path / "organmnist3d.npz", train_images=trees.noise(0, 3, 8, 8, 8), train_labels=labels)
    with pytest.raises(DataError, match="images must be"):
        look_through("medmnist", tmp_path)
    (tmp_path / "organmnist3d.npz").unlink()
    for odd in (labels - 1, labels + 11, labels.astype(str)):
        np.savez(tmp_path / "organamnist.npz", train_images=trees.noise(0, 3, 28, 28), train_labels=odd)
        with pytest.raises(DataError, match="whole numbers from 0 to 10"):
            look_through("medmnist", tmp_path)
    path = tmp_path / "organamnist.npz"
    np.savez_compressed(path, train_labels=np.arange(3000) % 11, train_images=trees.noise(0, 3000, 28, 28))
    whole = bytearray(path.read_bytes())
    whole[whole.index(b"train_labels.npy") + 200] ^= 0xFF
    path.write_bytes(whole)
    with pytest.raises(DataError, match=r"train_labels cannot be read .*; download it again"):
        look_through("medmnist", tmp_path)
