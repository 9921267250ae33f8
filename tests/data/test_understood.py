"""The line that says what was understood of a folder, and the warnings that come with it."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from folders_on_disk import mask, photograph, records_of, save, save_volume, write_classes, write_masks, write_tree
from PIL import Image

from harmofl.data import open_federation
from harmofl.data.checks.problem import Problem, alike
from harmofl.data.checks.quick_checks import quick_problems, understood
from harmofl.data.layout.reader import read_layout, settle
from harmofl.errors import DataError


def masks_with_patients(root, split=""):
    write_masks(root)
    rows = [f"{s},p{k}.png,q{k}{',' + split if split else ''}" for s in "ab" for k in range(6)]
    (root / "metadata.csv").write_text("\n".join([f"site,file,patient{',split' if split else ''}", *rows]))
    return root


def test_a_folder_in_one_line(tmp_path):
    files = read_layout(masks_with_patients(tmp_path / "m"))
    assert understood(files) == (
        "segmentation, 2 classes (background, foreground), 2 sites, 12 images 8x8 RGB, "
        "split at random by patient from metadata.csv"
    )
    assert "12 images 8x8 RGB resized to 4x6, split" in understood(settle(files, (4, 6), None))
    table = masks_with_patients(tmp_path / "s", "test")
    assert understood(read_layout(table)).endswith("12 images 8x8 RGB, all for testing")
    assert understood(read_layout(write_classes(tmp_path / "c"))) == (
        "classification, 2 classes (cat, dog), 2 sites, 24 images 8x8 RGB, "
        "split at random, each image a patient of its own"
    )
    tree = write_tree(tmp_path / "t", [replace(r, patient=f"z{k}") for k, r in enumerate(records_of())])
    assert understood(read_layout(tree)) == (
        "segmentation, 2 classes (background, foreground), 1 site, 6 images 8x8 RGB, split by patient from manifest.csv"
    )


def test_sizes_kinds_volumes_and_many_classes(tmp_path):
    for k in range(4):
        save(tmp_path / f"p/a/x{k % 2}/{'ab'[k % 2]}{k}.png", photograph(k, (8 + k, 9)))
        save(tmp_path / f"p/a/x1/grey{k}.png", mask(k, (30, 20)).astype(np.uint16))
        save_volume(tmp_path / f"v/imagesTr/{k}.nii.gz", np.ones((4, 5, 3), np.int16))
        save_volume(tmp_path / f"v/labelsTr/{k}.nii.gz", np.ones((4, 5, 3), np.uint8))
    names = {f"class {k}": k for k in range(12)}
    (tmp_path / "v/dataset.json").write_text(json.dumps({"labels": names}))
    assert "8 images 8x9 to 30x20 RGB and grey 16 bit," in understood(read_layout(tmp_path / "p"))
    said = understood(read_layout(tmp_path / "v"))
    assert "12 classes (class 0, class 1, class 2, class 3, class 4, class 5, class 6, class 7, and 4 more)" in said
    assert "1 site, 4 volumes 4x5 int16, split at random" in said


def test_what_folders_tell_of_the_split(tmp_path):
    for split in ("train", "test"):
        for k in range(5):
            save(tmp_path / f"{split}/cat/{split}c{k}.png", photograph(k))
            save(tmp_path / f"{split}/dog/{split}d{k}.png", photograph(9 + k))
    assert understood(read_layout(tmp_path)).endswith(
        "20 images 8x8 RGB, split by the folders test, train, val drawn from train"
    )


def test_it_is_told_before_an_error(tmp_path):
    write_masks(tmp_path)
    (tmp_path / "a/images/p1.png").write_bytes(b"")
    told = []
    with pytest.raises(DataError, match="cannot be read"):
        open_federation(tmp_path, told=told.append)
    assert told[0].startswith("segmentation, 2 classes")


def test_warnings_are_told_once_and_at_most_ten(tmp_path):
    write_masks(tmp_path, [f"s{k:02}" for k in range(14)])
    (tmp_path / "s00/images/x.bmp").write_bytes(b"x")
    told = []
    open_federation(tmp_path, told=told.append)
    assert told[1] == "warning: s00: test has only 1 case; a score over fewer than 5 is unreliable"
    assert sum(line.startswith("warning: ") for line in told) == 10
    assert told[-2] == f"and 5 more warnings; `harmofl data check {tmp_path}` lists all"
    assert told[-1].endswith(f"`harmofl data check {tmp_path}`")
    told.clear()
    open_federation(tmp_path, told=told.append, training=False)
    assert [line.split(": ")[1] for line in told[1:]] == ["s00/images/x.bmp"]


def test_copies_on_both_sides_of_a_split_by_folders(tmp_path):
    for k in range(4):
        for kind in ("cat", "dog"):
            save(tmp_path / f"train/{kind}/{kind}{k}.png", photograph(k))
            save(tmp_path / f"val/{kind}/other-{kind}{k}.png", photograph(k + 50))
            save(tmp_path / f"test/{kind}/{kind}{k}.png", photograph(k if k < 3 else 99))
    told = []
    open_federation(tmp_path, told=told.append)
    (found,) = [line for line in told if "the same file" in line]
    assert found == (
        f"warning: {tmp_path.name}/test/cat/cat0.png: is the same file as train/cat/cat0.png, in another split "
        "(6 of 8 compared names); keep one of them"
    )


@pytest.mark.parametrize("training", [True, False])
def test_one_hospital_that_is_two_sites(tmp_path, training):
    write_masks(tmp_path, ("rome", "oslo"), images=40)
    shutil.copytree(tmp_path / "rome", tmp_path / "rome (copy)")
    for k in range(0, 40, 4):
        save(tmp_path / f"rome (copy)/images/p{k}.png", photograph(1000 + k))
    kept = sum(int(name[1:]) % 4 > 0 for name in sorted(f"p{k}" for k in range(40))[::2])
    told = []
    open_federation(tmp_path, told=told.append, training=training)
    assert [line for line in told if "same file" in line] == [
        "warning: rome/images/p10.png: is the same file as rome (copy)/images/p10.png, at another site "
        f"({kept} of 20 compared names); keep one of them"
    ]


@pytest.mark.parametrize("training", [True, False])
def test_one_image_in_two_classes(tmp_path, training):
    write_classes(tmp_path)
    shutil.copyfile(tmp_path / "a/cat/cat1.png", tmp_path / "a/dog/cat1.png")
    told = []
    open_federation(tmp_path, told=told.append, training=training)
    assert [line for line in told if "class (" in line] == [
        "warning: a/cat/cat1.png: is the same file as dog/cat1.png, in another class (1 of 1 compared names); "
        "keep one of them"
    ]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_square_images_that_a_viewer_turns_are_told_of_where_there_are_masks(tmp_path, suffix, training):
    write_masks(tmp_path / "m")
    write_classes(tmp_path / "c")
    upside_down = Image.Exif()
    upside_down[0x0112] = 3
    for path in sorted(tmp_path.glob("m/a/images/*"))[2:] + sorted(tmp_path.glob("c/a/cat/*")):
        with Image.open(path) as image:
            image.load()
        path.unlink()
        image.save(path.with_suffix(suffix), exif=upside_down)
    told = []
    open_federation(tmp_path / "m", told=told.append, training=training)
    open_federation(tmp_path / "c", told=told.append, training=training)
    assert [line for line in told if "EXIF" in line] == [
        f"warning: a/images/p2{suffix}: 4 of 6 checked images have an EXIF orientation but are used as stored, as "
        "masks are; rotate the pixels if masks do not fit"
    ]


def problems(count, message, kind="k", site="a"):
    return [Problem("error", site, f"images/p{k}.png", message.format(k=k, n=k + 2), kind) for k in range(count)]


@pytest.mark.parametrize(
    "message",
    [
        "mask masks/p{k}.png: labels must be 0 and 1, got {n}; mend the mask",
        "cannot be read (broken at {n}.5)",
        "mask p{k}_seg.png is {n}x8, image is 8x8",
        "label must be one of a, b, got '{n} x'",
    ],
)
def test_a_fault_of_many_files_is_one_line(message):
    (one,) = alike(problems(1000, message))
    assert str(one) == f"a/images/p0.png: {message.format(k=0, n=2)} (and 999 more like it)"
    assert one.count == 1000
    assert len(alike([*problems(3, message), *problems(3, message, site="b"), *problems(3, message, "other")])) == 3


def test_few_faults_of_no_file_are_told_each_by_itself():
    def of(count):
        return [Problem("error", "a", "", f"patient 'z{k}' must be in one split", "k") for k in range(count)]

    assert alike(of(3)) == of(3)
    (one,) = alike(of(40))
    assert one.message.endswith("(and 39 more like it)")


@pytest.mark.parametrize("column", ["patient_id", "Patient ID", "subject", "subject-id", "group"])
def test_patients_of_metadata_stay_on_one_side_however_their_column_is_called(tmp_path, column):
    folder = write_masks(tmp_path / "f", images=10)
    rows = [f"{site},{image.name},p{k // 2},a" for site in ("a", "b") for k, image in enumerate(images(folder, site))]
    (folder / "metadata.csv").write_text("\n".join([f"site,file,{column},fold", *rows]))
    files = read_layout(folder, seed=0)
    for site in files.sites:
        sides = {}
        for record in site.records:
            sides.setdefault(record.patient, set()).add(record.split)
        assert set(sides) == {f"p{k}" for k in range(5)} and all(len(split) == 1 for split in sides.values())
    assert understood(files).endswith("split at random by patient from metadata.csv")
    assert files.said == ("metadata.csv: columns that are not used: fold",)


def test_a_table_without_a_split_is_not_said_to_tell_it(tmp_path):
    folder = write_masks(tmp_path / "f", images=10)
    rows = [f"{site},{image.name}" for site in ("a", "b") for image in images(folder, site)]
    (folder / "metadata.csv").write_text("\n".join(["site,file", *rows]))
    assert understood(read_layout(folder, seed=0)).endswith("split at random, each image a patient of its own")


def images(folder, site):
    return sorted((folder / site / "images").iterdir())


@pytest.mark.parametrize("place", ["result", "runs/mine", "compared"])
def test_what_runs_wrote_beside_the_sites_is_no_site(tmp_path, place):
    folder = write_masks(tmp_path / "f", images=10)
    written = folder / place
    (written / "report-files").mkdir(parents=True)
    (written / ("table.json" if place == "compared" else "rounds.jsonl")).write_text("")
    for picture in (written / "comparison.png", written / "report-files" / "chart.png"):
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(picture)
    assert [site.name for site in read_layout(folder, seed=0).sites] == ["a", "b"]


def test_labels_that_contradict_their_folders_are_said(tmp_path):
    write_classes(tmp_path / "c")
    files = read_layout(tmp_path / "c", seed=0)
    first, second = files.info.classes
    swap = {first: second, second: first}
    rows = [f"{s.name},{r.image},{swap[r.target]}" for s in files.sites for r in s.records]
    (tmp_path / "c" / "metadata.csv").write_text("\n".join(["site,file,label", *rows]))
    said = [str(problem) for problem in quick_problems(read_layout(tmp_path / "c", seed=0), tmp_path / "c")]
    assert sum("labels of metadata.csv differ from the folders" in line for line in said) == len(files.sites)
