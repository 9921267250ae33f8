"""The folder layouts that people really have: read as they are meant, or refused in one line that says what to do."""

import json
from collections import Counter

import numpy as np
import pytest
from folders_on_disk import (
    mask,
    photograph,
    refused,
    save,
    save_volume,
    texts,
    write_classes,
    write_masks,
    write_metadata,
)

from harmofl.data import open_federation
from harmofl.data.checks.quick_checks import understood
from harmofl.data.layout.name_meanings import meaning
from harmofl.data.layout.reader import read_layout
from harmofl.data.manifest import Record
from harmofl.errors import DataError
from harmofl.ingest import import_federation


def write(root, *patterns, images=6):
    """Files by pattern, masks where its last folder or its stem says so."""
    for number, pattern in enumerate(patterns):
        for k in range(images):
            is_mask = any(
                word in pattern.lower() for word in ("mask", "label", "seg", "gt", "ann", "contour", "truth", "manual")
            )
            save(root / pattern.format(k=k), mask(k) if is_mask else photograph(100 * number + k))
    return root


def splits_of(site):
    return Counter(record.split for record in site.records)


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ("images/{k}.png", "masks/{k}.png"),
        ("Images/{k}.png", "Masks/{k}.png"),
        ("image/{k}.jpg", "mask/{k}.png"),
        ("img/{k}.png", "label/{k}.png"),
        ("IMG/{k}.png", "GT/{k}.png"),
        ("imgs/{k}.png", "annotations/{k}.png"),
        ("imagesTr/{k}.png", "labelsTr/{k}.png"),
        ("imagestr/c{k}_0000.png", "labelstr/c{k}.png"),
        ("imagesTr/case_{k}_0000.png", "labelsTr/case_{k}.png"),
        ("JPEGImages/{k}.jpg", "SegmentationClass/{k}.png"),
        ("scans/{k}.tif", "ground_truth/{k}.tif"),
        ("train_images/{k}.png", "train_masks/{k}.png"),
        ("images/c{k}.png", "masks/c{k}_mask.png"),
        ("images/image_{k}.png", "labels/label_{k}.png"),
        ("images/c{k}.png", "masks/C{k}_Segmentation.png"),
        ("images/IMG_{k}.png", "masks/img_{k}.png"),
        ("imgs/img{k}.png", "segs/seg{k}.png"),
        ("img_dir/{k}.png", "ann_dir/{k}.png"),
        ("train/{k}.jpg", "train_masks/{k}_mask.png"),
    ],
)
def test_folders_of_images_and_masks(tmp_path, images, masks):
    for site in "ab":
        write(tmp_path, f"{site}/{images}", f"{site}/{masks}")
    files = read_layout(tmp_path)
    assert files.info.task == "segmentation" and files.info.classes == ("background", "foreground")
    assert [site.name for site in files.sites] == ["a", "b"]
    for site in files.sites:
        assert [(r.image, r.target) for r in site.records] == [
            (images.format(k=k), masks.format(k=k)) for k in range(6)
        ]
    assert open_federation(tmp_path).sites[0].train.targets.max() == 1
    assert [site.name for site in read_layout(tmp_path / "a").sites] == ["a"]


@pytest.mark.parametrize(
    ("name", "role", "split"),
    [
        ("imagesTr", "images", "train"),
        ("LABELSTS", "masks", "test"),
        ("images_val", "images", "val"),
        ("Training set", "", "train"),
        ("image_masks", "masks", ""),
        ("north", "", ""),
        ("training hospital", "", ""),
        ("data", "", ""),
        ("trainannot", "masks", "train"),
        ("1st_manual", "masks", ""),
        ("with_mask", "", ""),
        ("Bilder", "", ""),
        ("Ergebnis-Mask-ü", "", ""),
    ],
)
def test_what_names_mean(name, role, split):
    assert (meaning(name).role, meaning(name).split) == (role, split)


@pytest.mark.parametrize(
    "patterns",
    [
        ("train/{c}/{k}", "val/{c}/{k}", "test/{c}/{k}"),
        ("training/{c}/t{k}", "validation/{c}/v{k}", "testing/{c}/s{k}"),
        ("Train/{c}/{k}", "valid/{c}/{k}", "Test/{c}/{k}"),
    ],
)
@pytest.mark.parametrize("depth", ["", "a/"])
def test_splits_above_classes(tmp_path, patterns, depth):
    for pattern in patterns:
        for kind in ("cat", "dog"):
            write(tmp_path, depth + pattern.format(c=kind, k=f"{kind}{{k}}") + ".png", images=4)
    (site,) = read_layout(tmp_path).sites
    assert site.name == (depth.rstrip("/") or tmp_path.name)
    assert splits_of(site) == {"train": 8, "val": 8, "test": 8}
    assert {record.target for record in site.records} == {"cat", "dog"}
    assert all(r.split in ("train", "val", "test") and r.split[:2] == r.image.lower()[:2] for r in site.records)
    assert open_federation(tmp_path).info.classes == ("cat", "dog")


@pytest.mark.parametrize(
    "pattern",
    ["{s}/images/{k}.png", "images/{s}/{k}.png", "{s}_images/{k}.png", "images_{s}/{k}.png", "{s}images/{k}.png"],
)
def test_splits_around_images(tmp_path, pattern):
    for split in ("train", "val", "test"):
        for what in ("images", "masks"):
            write(tmp_path, pattern.replace("images", what).format(s=split, k="{k}"), images=3)
    (site,) = read_layout(tmp_path).sites
    assert splits_of(site) == {"train": 3, "val": 3, "test": 3}
    for record in site.records:
        assert record.split in record.image
        assert record.target == record.image.replace("images", "masks")
    import_federation(tmp_path, tmp_path.parent / f"{tmp_path.name}-new")
    assert Counter(
        len(site.split(s)) for site in open_federation(tmp_path).sites for s in ("train", "val", "test")
    ) == {3: 3}


def test_sites_below_splits(tmp_path):
    for split in ("train", "val", "test"):
        for site in ("north", "south"):
            write(tmp_path, f"{split}/{site}/ill/i{{k}}.png", f"{split}/{site}/well/w{{k}}.png", images=3)
    north, south = read_layout(tmp_path).sites
    assert (north.name, south.name) == ("north", "south")
    assert splits_of(south) == {"train": 6, "val": 6, "test": 6}


@pytest.mark.parametrize(("given", "drawn"), [(("train", "test"), "val"), (("train", "val"), "test")])
def test_what_folders_do_not_tell_of_the_split_is_drawn_from_train(tmp_path, given, drawn):
    for split in given:
        write(tmp_path, f"a/{split}/images/{split}{{k}}.png", f"a/{split}/masks/{split}{{k}}.png", images=10)
    (site,) = read_layout(tmp_path).sites
    count = {"val": 1, "test": 2}[drawn]
    assert splits_of(site) == {"train": 10 - count, given[1]: 10, drawn: count}
    assert all(f"/{given[0]}/" in f"/{r.image}" for r in site.records if r.split == drawn)
    assert site.split.endswith(f", {drawn} drawn from train") and site.split.startswith("split by the folders ")


def test_sites_called_test_and_val_alone_are_sites(tmp_path):
    write_masks(tmp_path, ("north", "test"))
    assert [site.name for site in read_layout(tmp_path).sites] == ["north", "test"]


@pytest.mark.parametrize(
    ("patterns", "words"),
    [
        (("a/photographs/p{k}.png", "a/outlines/p{k}.png"), ("outlines", "photographs", "p0")),
        (("a/T1/TCGA-{k}.png", "a/T2/TCGA-{k}.png"), ("T1", "T2", "tcga-0")),
        (("a/bilder/{k}.png", "a/masken_labels/{k}.png"), ("bilder", "masken_labels")),
        (("a/train/x/p{k}.png", "a/train/y/p{k}.png", "a/test/x/q{k}.png", "a/test/y/q{k}.png"), ("x and y", "q0")),
    ],
)
def test_folders_with_the_same_files_are_not_two_classes(tmp_path, patterns, words):
    message = refused(write(tmp_path, *patterns))
    assert "hold files of the same names" in message and "images and masks" in message
    assert all(word in message for word in words)


def test_numbered_files_of_two_classes_are_read_and_told_of(tmp_path):
    write(tmp_path, "a/cat/{k}.png", "a/dog/{k}.png")
    assert read_layout(tmp_path).info.classes == ("cat", "dog")
    assert "a: cat and dog hold files of the same names; they are read as two classes" in " ".join(
        texts(tmp_path, "warning")
    )


@pytest.mark.parametrize(
    "patterns",
    [
        ("a/benign/b ({k}).png", "a/benign/b ({k})_mask.png", "a/normal/n ({k}).png"),
        ("a/p1/p1_flair_{k}.png", "a/p1/p1_seg.png", "a/p2/p2_flair_{k}.png", "a/p2/p2_seg.png"),
    ],
)
def test_masks_beside_images_are_no_images_of_a_class(tmp_path, patterns):
    assert "looks like a mask of" in refused(write(tmp_path, *patterns))


def test_cases_in_folders_are_no_classes(tmp_path):
    for k in range(4):
        save_volume(tmp_path / f"a/case_{k}/imaging.nii.gz", np.random.default_rng(k).random((4, 4, 3)))
        save_volume(tmp_path / f"a/case_{k}/segmentation.nii.gz", np.ones((4, 4, 3), np.uint8))
    assert "case_0 and case_1 each hold a file segmentation, so they are cases and not classes" in refused(tmp_path)
    assert "so they are cases and not classes" in refused(tmp_path / "a")


def test_several_folders_may_hold_the_masks(tmp_path):
    write(tmp_path, "a/img/{k}.png", "a/gt/{k}.png", "a/seg/{k}.png")
    assert "one folder must hold the masks, but gt and seg could" in refused(tmp_path)
    write(tmp_path, "drive/images/{k}_training.png", "drive/1st_manual/{k}_manual1.png", "drive/mask/{k}_mask.png")
    assert "but 1st_manual and mask could" in refused(tmp_path / "drive")  # a mask of the field of view
    (tmp_path / "a/seg").rename(tmp_path / "a/masks")
    assert read_layout(tmp_path / "a").sites[0].records[0].target == "masks/0.png"


@pytest.mark.parametrize("name", ["images", "img", "imagesTr"])
def test_images_without_masks_are_no_class(tmp_path, name):
    write(tmp_path, f"a/{name}/{{k}}.png", "a/imagesTs/{k}.png")
    assert f"has {min(name, 'imagesTs')}/ but no masks/ or labels/" in refused(tmp_path)


def test_class_folders_without_a_site(tmp_path):
    write_classes(tmp_path, ("a",))
    assert "classes (cat, dog) go into their site's folder" in refused(tmp_path / "a")
    assert "images directly in the folder belong to no site" in refused(tmp_path / "a/cat")


@pytest.mark.parametrize("above", ["in", "in/in", "x/y/z"])
def test_a_federation_below(tmp_path, above):
    write_masks(tmp_path / above)
    message = refused(tmp_path)
    assert f"{tmp_path / above} could be one: give that folder" in message or above == "in"


@pytest.mark.parametrize(
    "patterns", [("cat/x/c{k}.png", "dog/x/d{k}.png"), ("fold1/images/{k}.png", "fold1/masks/{k}.png")]
)
def test_a_folder_too_deep_at_every_site(tmp_path, patterns):
    write(tmp_path, *(f"{site}/{pattern}" for site in "ab" for pattern in patterns))
    assert "; a, b could each be one: give one of them; if these are sites, their images are a" in refused(tmp_path)


@pytest.mark.parametrize("what", [("images/{k}/", "masks/{k}/"), ("imagesTr/p{k}/", "labelsTr/p{k}/")])
def test_images_a_folder_too_deep(tmp_path, what):
    write(tmp_path, *(f"a/{folder}{n}.png" for folder in what for n in range(3)))
    name = what[0].split("/")[0]
    assert f"a/{name}: must hold images, but holds folders of them (" in refused(tmp_path)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a/cat/x.bmp", "a/cat/x.bmp is not read"),
        ("a.zip", "a.zip is an archive, unpack it"),
        ("b/x.tar.gz", "archive"),
    ],
)
def test_files_that_hold_no_image_that_can_be_read(tmp_path, name, words):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_bytes(b"x")
    assert words in refused(tmp_path)


def test_tables_of_other_names_are_told_of(tmp_path):
    write_masks(tmp_path)
    for name in ("patients.csv", "a/metadata.csv", "Metadata.xlsx"):
        (tmp_path / name).write_text("file,patient\n")
    found = [text.split(":")[0] for text in texts(tmp_path, "warning") if "a table must be metadata.csv" in text]
    assert found == ["a/metadata.csv", "Metadata.xlsx"]
    (tmp_path / "MetaData.CSV").write_text("\n".join(["site,file,patient", *(f"A,p{k}.png,z{k}" for k in range(6))]))
    assert [record.patient for record in read_layout(tmp_path).sites[0].records] == [f"z{k}" for k in range(6)]


@pytest.mark.parametrize("name", ["@eaDir", "__MACOSX", "#recycle", "System Volume Information"])
def test_folders_that_systems_make_are_passed_over(tmp_path, name):
    write_classes(tmp_path)
    before = read_layout(tmp_path)
    for place in ("", "a", "a/cat"):
        save(tmp_path / place / name / "cat0.png" / "thumb.png", photograph(0))
        save(tmp_path / place / name / "thumb.png", photograph(0))
    assert read_layout(tmp_path) == before
    assert not [text for text in texts(tmp_path, "warning") if name in text]


@pytest.mark.parametrize("place", ["", "a/"])
@pytest.mark.parametrize(
    "name", ["metadata.csv.txt", "metadata(1).csv", "metadata - Copy.csv", "Metadata", "metadata.txt", "x.csv.txt"]
)
def test_tables_whose_names_are_nearly_right_are_told_of(tmp_path, name, place):
    write_masks(tmp_path)
    (tmp_path / place / name).write_text("file,patient\n")
    (found,) = [text for text in texts(tmp_path, "warning") if "a table must be metadata.csv" in text]
    assert found.startswith(f"{place}{name}: is not used")


def test_copies_of_the_table_that_is_read_are_told_of(tmp_path):
    write_masks(tmp_path)
    write_metadata(tmp_path, [{"site": s, "file": f"p{k}.png", "patient": f"z{k}"} for s in "ab" for k in range(6)])
    for name in ("metadata(1).csv", "a/metadata.csv", "notes.csv"):
        (tmp_path / name).write_text("file\n")
    found = [text.split(":")[0] for text in texts(tmp_path, "warning") if "a table must be metadata.csv" in text]
    assert found == ["a/metadata.csv", "metadata(1).csv"]


def test_bids_without_folders_of_modalities(tmp_path):
    for k in range(3):
        save_volume(tmp_path / f"sub-{k}/sub-{k}_T1w.nii.gz", np.ones((3, 3, 3)))
    (tmp_path / "dataset_description.json").write_text("{}")
    assert "is a BIDS tree" in refused(tmp_path)


@pytest.mark.parametrize("place", ["", "a/"])
def test_bids(tmp_path, place):
    for k in range(3):
        for kind in ("anat", "func"):
            save_volume(tmp_path / f"{place}sub-0{k}/{kind}/sub-0{k}_{kind}.nii.gz", np.ones((3, 3, 3)))
    message = refused(tmp_path)
    assert "is a BIDS tree (sub-00/...), which is not supported; write a .csv table" in message


DECATHLON = {"0": "background", "1": "anterior", "2": "posterior"}
NNUNET = {"background": 0, "anterior": 1, "posterior": 2}


def write_volumes(root, images="imagesTr/c{k}_0000.nii.gz", masks="labelsTr/c{k}.nii.gz", number=6):
    for k in range(number):
        save_volume(root / images.format(k=k), np.random.default_rng(k).random((4, 5, 3)))
        save_volume(root / masks.format(k=k), np.full((4, 5, 3), k % 2, np.uint8))
    return root


@pytest.mark.parametrize("labels", [DECATHLON, NNUNET])
def test_nnunet_names_its_classes(tmp_path, labels):
    write_volumes(tmp_path / "Dataset001")
    training = [{"image": f"./imagesTr/c{k}.nii.gz", "label": f"./labelsTr/c{k}.nii.gz"} for k in range(6)]
    table = {"labels": labels, "channel_names": {"0": "T2"}, "numTraining": 6, "training": training}
    (tmp_path / "Dataset001/dataset.json").write_text(json.dumps(table))
    files = read_layout(tmp_path)
    assert files.info.classes == ("background", "anterior", "posterior")
    assert files.sites[0].records[2].target == "labelsTr/c2.nii.gz"
    assert read_layout(tmp_path / "Dataset001").info.classes == files.info.classes


def test_nnunet_with_test_labels_keeps_its_split(tmp_path):
    write_volumes(tmp_path)
    write_volumes(tmp_path, "imagesTs/t{k}_0000.nii.gz", "labelsTs/t{k}.nii.gz", 3)
    (site,) = read_layout(tmp_path).sites
    assert splits_of(site) == {"train": 5, "val": 1, "test": 3}
    assert {r.target[:8] for r in site.records if r.split == "test"} == {"labelsTs"}


def test_channels_in_files_of_their_own(tmp_path):
    write_volumes(tmp_path)
    write_volumes(tmp_path, "imagesTr/c{k}_0001.nii.gz")
    assert "c0 has a file for each channel, c0_0000.nii.gz and c0_0001.nii.gz; keep one of them" in refused(tmp_path)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"background": 0, "whole": [1, 2]}, "whole is [1, 2]; regions of several labels are not supported"),
        ({"background": 0, "tumour": 2}, "labels must be numbered from 0 without gaps, got 0, 2"),
        ({"background": 0, "tumour": 1, "ignore": 2}, "a label ignore is not supported"),
        ("{", "must be valid JSON"),
    ],
)
def test_what_a_dataset_json_cannot_say(tmp_path, labels, message):
    write_volumes(tmp_path)
    text = labels if isinstance(labels, str) else json.dumps({"labels": labels})
    (tmp_path / "dataset.json").write_text(text)
    assert message in refused(tmp_path)


def test_sites_must_name_their_labels_alike(tmp_path):
    for site, labels in (("a", NNUNET), ("b", {"background": 0, "posterior": 1, "anterior": 2})):
        write_volumes(tmp_path / site)
        (tmp_path / site / "dataset.json").write_text(json.dumps({"labels": labels}))
    assert "labels must be those of" in refused(tmp_path)
    assert "must have the model's classes in their order" in refused(
        tmp_path / "a", expected=("segmentation", ("background", "posterior", "anterior"))
    )


@pytest.mark.parametrize("name", ["dataset.json", "datalist.json"])
def test_a_list_of_monai(tmp_path, name):
    write_volumes(tmp_path, "t1/{k}.nii.gz", "lesions/{k}.nii.gz", 8)
    items = [{"image": f"t1/{k}.nii.gz", "label": f"./lesions/{k}.nii.gz", "fold": k % 2} for k in range(8)]
    lists = {"training": items[:4], "validation": items[4:6], "testing": items[6:7], "test": ["t1/7.nii.gz"]}
    (tmp_path / name).write_text(json.dumps({"labels": {"0": "background", "1": "lesion"}, **lists}))
    files = read_layout(tmp_path if name == "dataset.json" else tmp_path / name)
    (site,) = files.sites
    assert files.info.classes == ("background", "lesion")
    assert site.records[0] == Record("t1/0.nii.gz", "lesions/0.nii.gz", "t1/0", "t1/0", "train")
    assert splits_of(site)["train"] == 4
    assert site.name == tmp_path.name and site.split.startswith("split by ")
    import_federation(tmp_path if name == "dataset.json" else tmp_path / name, tmp_path.parent / f"{tmp_path.name}-new")
    assert "1 images without a label are not used" in " ".join(texts(tmp_path / name, "warning"))


def test_a_list_of_classes_and_of_what_is_not_read(tmp_path):
    write(tmp_path, "img/{k}.png")
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"training": [{"image": f"img/{k}.png", "label": k % 2} for k in range(6)]}))
    assert open_federation(path).info.classes == ("0", "1")
    path.write_text(json.dumps({"training": [{"image": ["a.png", "b.png"], "label": 1}]}))
    assert 'an image must be one file, got ["a.png", "b.png"]' in refused(path)
    path.write_text(json.dumps([{"image": f"img/{k}.png", "mask": f"img/{k}.png"} for k in range(6)]))
    assert read_layout(path).info.task == "segmentation"
    path.write_text("[1]")
    assert "must list images under training" in refused(path)


def test_metadata_with_folders_of_other_names(tmp_path):
    write(tmp_path, "a/Images/{k}.png", "a/Masks/{k}_mask.png")
    rows = [f"a,{k}.PNG,{s}" for k, s in enumerate(("train", "train", "val", "test"))]
    (tmp_path / "metadata.csv").write_text("\n".join(["site,file,split", *rows]))
    (site,) = read_layout(tmp_path).sites
    assert [(r.image, r.target) for r in site.records][-1] == ("Images/3.png", "Masks/3_mask.png")
    assert site.unlisted == ("Images/4.png", "Images/5.png")


@pytest.mark.parametrize(
    "file",
    [
        "{site}/images/p{k}.png",
        "{SITE}\\images\\p{k}.png",
        "./{site}/images/../images/p{k}.png",
        "{root}/{site}/images/p{k}.png",
        "images/p{k}",
        "P{k}",
        "{site}/images/p{k}",
    ],
)
def test_files_of_metadata_from_the_root_absolute_or_without_suffix(tmp_path, file):
    write_masks(tmp_path)
    rows = [(site, file.format(site=site, SITE=site.upper(), root=tmp_path, k=k)) for site in "ab" for k in range(6)]
    write_metadata(tmp_path, [{"site": s, "file": f, "patient": f"z{k // 2}"} for k, (s, f) in enumerate(rows)])
    files = read_layout(tmp_path)
    assert [[r.image for r in site.records] for site in files.sites] == 2 * [[f"images/p{k}.png" for k in range(6)]]
    assert not texts(tmp_path, "error")


def test_a_folder_called_as_its_site_is_meant_first(tmp_path):
    write_classes(tmp_path, ("cat",))
    rows = [{"site": "cat", "file": f"{c}/{c}{k}.png", "label": c} for c in ("cat", "dog") for k in range(6)]
    write_metadata(tmp_path, rows)
    assert [r.image for r in read_layout(tmp_path).sites[0].records] == [row["file"] for row in rows]


def test_patients_in_a_table_tell_files_of_one_name_apart(tmp_path):
    write(tmp_path, "a/ill/case{k}.png", "a/well/case{k}.png")
    rows = [f"a,{kind}/case{k}.png,{kind}{k}" for kind in ("ill", "well") for k in range(6)]
    (tmp_path / "metadata.csv").write_text("\n".join(["site,file,patient", *rows]))
    assert read_layout(tmp_path).info.classes == ("ill", "well")


def test_images_and_classes_at_one_site(tmp_path):
    write(tmp_path, "a/train/images/{k}.png", "a/train/masks/{k}.png", "a/test/cat/{k}.png")
    with pytest.raises(DataError, match="must hold either images with masks or class folders, got both"):
        read_layout(tmp_path)


def test_a_site_below_test_alone_is_for_testing(tmp_path):
    write(tmp_path, *(f"{part}/{c}/{c}{{k}}.png" for part in ("train/rome", "train/bern", "test/oslo") for c in "xy"))
    splits = {site.name: splits_of(site) for site in read_layout(tmp_path).sites}
    assert set(splits["oslo"]) == {"test"}
    assert set(splits["rome"]) == {"train", "val", "test"}


@pytest.mark.parametrize(
    "patterns", [("test/images/{k}.png", "test/masks/{k}.png"), ("test/x/x{k}.png", "test/y/y{k}.png")]
)
def test_a_site_of_a_test_folder_alone_is_for_testing(tmp_path, patterns):
    write(tmp_path, *(f"oslo/{pattern}" for pattern in patterns))
    write(tmp_path, *(f"rome/{part}/{pattern[5:]}" for pattern in patterns for part in ("train", "test")))
    oslo, rome = read_layout(tmp_path).sites
    assert set(splits_of(oslo)) == {"test"}
    assert set(splits_of(rome)) == {"train", "val", "test"}


def test_a_test_folder_of_two_images_is_not_said_to_lack_patients(tmp_path):
    write(tmp_path, "oslo/test/images/{k}.png", "oslo/test/masks/{k}.png", images=2)
    write(tmp_path, "rome/images/r{k}.png", "rome/masks/r{k}.png", images=9)
    said = texts(tmp_path, "warning")
    assert "oslo: test has only 2 cases; a score over fewer than 5 is unreliable" in said
    assert not [line for line in said if "cannot be split" in line]


def test_the_folders_taken_for_a_split_are_named(tmp_path):
    write(tmp_path, *(f"{part}/{c}/{c}{{k}}.png" for part in ("TR", "TS") for c in "xy"))
    assert understood(read_layout(tmp_path)).endswith("split by the folders TR, TS, val drawn from train")


def test_a_mask_of_the_whole_name_goes_before_one_of_a_part(tmp_path):
    write(tmp_path, "a/images/img_{k}.png", "a/images/{k}.png", "a/masks/img_{k}_mask.png", "a/masks/{k}.png")
    pairs = {record.image: record.target for record in read_layout(tmp_path).sites[0].records}
    assert pairs["images/img_0.png"] == "masks/img_0_mask.png"
    assert pairs["images/0.png"] == "masks/0.png"


def test_several_masks_of_an_image_are_refused(tmp_path):
    write(tmp_path, "a/images/x{k}.png", "a/masks/x{k}_mask.png")
    write(tmp_path, "a/masks/x{k}_mask_1.png", images=1)
    assert refused(tmp_path) == (
        "masks: an image must have one mask, but there are x0_mask.png and x0_mask_1.png; merge them into one mask, or "
        "remove the others from the folder"
    )


def test_metadata_lists_images_and_no_masks(tmp_path):
    write(tmp_path, "a/images/{k}.png", "a/masks/{k}.png")
    rows = [f"a,{folder}/{k}.png" for folder in ("images", "masks") for k in range(6)]
    (tmp_path / "metadata.csv").write_text("\n".join(["site,file", *rows]))
    assert "metadata.csv:8: a row must name an image, but masks/0.png is in the folder of masks" in refused(tmp_path)


def test_folders_of_patients_are_no_classes(tmp_path):
    write(
        tmp_path, *(f"a/patient{n}/{k}_{what}.png" for n in range(3) for k in range(3) for what in ("slice", "lesion"))
    )
    rows = [f"a,{path.parent.name}/{path.name},{path.parent.name}" for path in sorted(tmp_path.rglob("*.png"))]
    (tmp_path / "metadata.csv").write_text("\n".join(["site,file,patient", *rows]))
    assert "(patient0, patient1, patient2) have the names of patients of metadata.csv, so" in refused(tmp_path)


def test_images_and_masks_of_sites_below_them(tmp_path):
    write(tmp_path, *(f"{folder}/{site}/{{k}}.png" for folder in ("images", "masks") for site in ("oslo", "rome")))
    assert "if these are sites, make them oslo/images and oslo/masks; else move" in refused(tmp_path)


def listed(folder, **more):
    write(folder, "images/{k}.png", "masks/{k}.png", images=8)
    rows = [
        {"image": f"images/{k}.png", "label": f"masks/{k}.png", **{n: f(k) for n, f in more.items()}} for k in range(8)
    ]
    (folder / "list.json").write_text(json.dumps(rows))
    return folder / "list.json"


def test_a_list_tells_patients_and_splits_by_any_usual_name(tmp_path):
    sides = ["train", "train", "train", "train", "val", "val", "test", "test"]
    path = listed(tmp_path, subject=lambda k: f"s{k // 2}", split=lambda k: sides[k], fold=lambda k: k)
    files = read_layout(path)
    assert [record.patient for record in files.sites[0].records] == [f"s{k // 2}" for k in range(8)]
    assert [record.split for record in files.sites[0].records] == sides
    assert files.said == (f"{path}: keys that are not used: fold",)
    with pytest.raises(DataError, match=r"split must be train, val or test, got 'later' of images/0\.png; correct"):
        read_layout(listed(tmp_path / "odd", split=lambda k: "later"))


def test_a_list_of_several_sites_and_one_without_a_background_at_0(tmp_path):
    with pytest.raises(DataError, match=r"one site, but has 2 under hospital \(h0, h1\); write a CSV table"):
        read_layout(listed(tmp_path / "two", hospital=lambda k: f"h{k % 2}"))
    path = listed(tmp_path / "names")
    path.write_text(json.dumps({"labels": {"tumour": 0, "background": 1}, "training": json.loads(path.read_text())}))
    with pytest.raises(DataError, match="the label background must be 0, got 1; renumber the labels"):
        read_layout(path)


def test_a_site_of_a_val_folder_alone_is_refused(tmp_path):
    write(tmp_path, *(f"{part}/{c}/{c}{{k}}.png" for part in ("train/rome", "test/rome", "val/oslo") for c in "xy"))
    assert refused(tmp_path).startswith(
        "oslo: a site must have images for training or testing, but its folders give only val"
    )


@pytest.mark.parametrize(
    "patterns", [("test/images/{k}.png", "test/masks/{k}.png"), ("test/x/x{k}.png", "test/y/y{k}.png")]
)
def test_a_folder_of_test_alone_is_one_site_for_testing(tmp_path, patterns):
    write(tmp_path / "paris", *patterns)
    (site,) = read_layout(tmp_path / "paris").sites
    assert (site.name, set(splits_of(site))) == ("paris", {"test"})


def test_two_images_of_one_mask_are_refused(tmp_path):
    write(tmp_path, "a/images/c{k}.png", "a/images/c{k}_0000.png", "a/masks/c{k}.png")
    assert refused(tmp_path).startswith(
        "a/masks/c0.png: a mask must belong to one image, but images/c0.png and images/c0_0000.png share it; rename one"
    )
