from dataclasses import replace

import folders_on_disk as disk
import numpy as np
from folders_on_disk import save, texts, write_tree

from harmofl.data.layout.reader import read_layout
from harmofl.data.manifest import write_manifest
from harmofl.ingest import find_problems


def test_sound_data_has_only_the_few_cases(tmp_path):
    assert texts(write_tree(tmp_path), "error") == []
    assert texts(tmp_path, "warning") == ["a: test has only 2 cases; a score over fewer than 5 is unreliable"]


def test_all_errors_are_listed_before_warnings(tmp_path):
    write_tree(tmp_path, [*disk.records_of(), disk.records_of()[0]])
    (tmp_path / "a/images/p1.png").unlink()
    (tmp_path / "a/masks/p2.png").write_bytes(b"")
    save(tmp_path / "a/masks/p3.png", disk.mask(3, (9, 9)))
    problems = find_problems(tmp_path)
    assert [p.severity for p in problems] == ["error"] * 4 + ["warning"] * (len(problems) - 4)
    assert [p.file for p in problems[:4]] == [f"images/p{i}.png" for i in range(4)]
    assert all(p.site == "a" and "\n" not in p.message for p in problems)


def test_a_layout_that_cannot_be_read_is_one_error(tmp_path):
    (problem,) = find_problems(tmp_path)
    assert problem.severity == "error"
    assert "no site found" in problem.message


def test_classes_absent_at_a_site_and_in_train(tmp_path):
    disk.write_classes(tmp_path)
    for i in range(6):
        (tmp_path / f"b/dog/dog{i}.png").unlink()
    rows = [
        {"site": path.parts[-3], "file": "/".join(path.parts[-2:]), "split": "val" if i % 3 else "test"}
        for i, path in enumerate(sorted(tmp_path.glob("a/dog/*.png")))
    ]
    for site in "ab":
        splits = ("train", "train", "train", "val", "test", "test")
        rows += [{"site": site, "file": f"cat/cat{i}.png", "split": s} for i, s in enumerate(splits)]
    disk.write_metadata(tmp_path, rows)
    warnings = texts(tmp_path, "warning")
    assert "a: class 'dog' is absent in train; the site cannot learn it by itself" in warnings
    assert "b: class 'dog' is absent at this site" in warnings


def test_empty_masks_are_counted(tmp_path):
    write_tree(tmp_path)
    for i in (0, 3):
        save(tmp_path / f"a/masks/p{i}.png", np.zeros((8, 8), np.uint8))
    expected = "a: 2 of 6 masks are empty; check that these images show no object"
    assert expected in texts(tmp_path, "warning")


def test_constant_images(tmp_path):
    write_tree(tmp_path)
    save(tmp_path / "a/images/p2.png", np.full((8, 8, 3), 9, np.uint8))
    assert "a/images/p2.png: all pixels are equal; check the file" in texts(tmp_path, "warning")


def test_copies_across_splits_and_sites(tmp_path):
    disk.write_masks(tmp_path, images=3)
    rows = [
        {"site": site, "file": f"p{i}.png", "split": split}
        for site in "ab"
        for i, split in enumerate(("train", "val", "test"))
    ]
    disk.write_metadata(tmp_path, rows)
    save(tmp_path / "b/images/p2.png", disk.photograph(0))
    expected = "b/images/p2.png: is in test and a copy of a/images/p0.png in train; remove one of them"
    assert expected in texts(tmp_path, "warning")


def test_copies_on_equal_sides_at_two_sites_and_in_two_classes(tmp_path):
    disk.write_classes(tmp_path)
    rows = [
        {"site": site, "file": f"{kind}/{kind}{i}.png", "split": disk.SPLIT_OF[i]}
        for site in "ab"
        for kind in ("cat", "dog")
        for i in range(6)
    ]
    disk.write_metadata(tmp_path, rows)
    save(tmp_path / "b/cat/cat1.png", disk.photograph(0))
    save(tmp_path / "a/dog/dog2.png", disk.photograph(2))
    assert [text for text in texts(tmp_path, "warning") if "copy" in text] == [
        "b/cat/cat1.png: is in train and a copy of a/cat/cat0.png in train; remove one of them",
        "a/dog/dog2.png: is of class dog and a copy of a/cat/cat2.png of class cat; keep the right one",
    ]


def test_copies_within_a_split_are_fine(tmp_path):
    write_tree(tmp_path)
    save(tmp_path / "a/images/p1.png", disk.photograph(0))
    assert not [text for text in texts(tmp_path, "warning") if "copy" in text]


def test_images_that_metadata_does_not_list(tmp_path):
    disk.write_masks(tmp_path, ("a",), images=5)
    rows = [{"file": f"p{i}.png", "split": s} for i, s in enumerate(("train", "val", "test"))]
    disk.write_metadata(tmp_path, rows)
    expected = "a/images/p3.png: 2 images have no row in metadata.csv and are not used"
    assert expected in texts(tmp_path, "warning")


def test_progress_reaches_the_end(tmp_path):
    told = []
    find_problems(write_tree(tmp_path), progress=lambda *step: told.append(step))
    assert told[-1] == ("a", 6, 6)


def test_an_unknown_label_is_reported_once(tmp_path):
    records = [replace(r, target="cat" if i else "bird") for i, r in enumerate(disk.records_of())]
    write_tree(tmp_path, records, task="classification", classes=("cat", "dog"))
    write_manifest(tmp_path / "a", records)
    assert len(texts(tmp_path, "error")) == 1


def test_a_mask_of_several_images(tmp_path):
    rows = ["image,mask"]
    for k in range(4):
        save(tmp_path / f"{k}.png", disk.photograph(k))
        rows.append(f"{k}.png,m.png")
    save(tmp_path / "m.png", np.eye(8, dtype=np.uint8) * 255)
    (tmp_path / "t.csv").write_text("\n".join(rows))
    assert any("1 masks belong to several images each" in text for text in texts(tmp_path / "t.csv", "warning"))


def test_files_of_one_name_in_several_classes_are_of_several_patients(tmp_path):
    for k in range(3):
        for kind in ("cat", "dog"):
            save(tmp_path / f"a/{kind}/{k}.png", disk.photograph(k + 10 * (kind == "dog")))
    (site,) = read_layout(tmp_path).sites
    assert {record.patient for record in site.records} == {f"{kind}/{k}" for kind in ("cat", "dog") for k in range(3)}


def test_names_that_people_may_mean_as_one(tmp_path):
    rows = ["site,file,patient"]
    for site in ("north", "North"):
        for k, patient in enumerate(("4711", "04711", "4711.0", "p1", "P1 ", "x")):
            save(tmp_path / site / f"images/{k}.png", disk.photograph(k))
            save(tmp_path / site / f"masks/{k}.png", disk.photograph(k)[..., 0] // 255 * 255)
            rows.append(f"{site},{k}.png,{patient}")
    (tmp_path / "metadata.csv").write_text("\n".join(rows))
    found = [text for text in texts(tmp_path, "warning") if "count as different" in text]
    fix = "count as different; if they mean the same, spell them alike"
    assert found == [
        f"sites 'North' and 'north' {fix}",
        f"North: patients '04711' and '4711' and '4711.0' {fix}",
        f"north: patients '04711' and '4711' and '4711.0' {fix}",
    ]


def test_files_that_are_not_used(tmp_path):
    disk.write_masks(tmp_path, ("a",))
    (tmp_path / "a/masks/p9.png").write_bytes((tmp_path / "a/masks/p1.png").read_bytes())
    (tmp_path / "a/images/p7.png").symlink_to(tmp_path / "gone.png")
    for name in ("p7.bmp", "p8.DCM"):
        (tmp_path / "a/images" / name).write_bytes(b"x")
    save(tmp_path / "a/images/deep/x.png", disk.photograph(9))
    save(tmp_path / "b/more/cat/x.png", disk.photograph(8))
    (tmp_path / "c").symlink_to(tmp_path / "gone")
    (tmp_path / "a/notes.txt").write_text("x")
    found = [text for text in texts(tmp_path, "warning") if "not used" in text]
    assert [text.split("; ")[0] for text in found] == [
        "a/images/deep/x.png: is not used: this folder is not searched for images",
        "a/images/p7.bmp: is not used: this file type is not supported",
        "a/images/p7.png: is not used: a broken link",
        "a/images/p8.DCM: is not used: only `data import` reads DICOM",
        "a/masks/p9.png: is not used: a mask without an image of the same name, or a second mask of that name",
        "b/more/cat/x.png: is not used: this folder is not searched for images",
        "c: is not used: a broken link",
    ]


def test_a_file_that_the_manifest_does_not_name(tmp_path):
    write_tree(tmp_path, disk.records_of(6))
    save(tmp_path / "a/images/x.png", disk.photograph(9))
    assert "a/images/x.png: is not used: manifest.csv has no row for it; add one or delete the file" in texts(
        tmp_path, "warning"
    )


def test_a_patient_in_train_here_and_in_test_there(tmp_path):
    disk.write_masks(tmp_path, images=3)
    splits = {"a": ("train", "val", "test"), "b": ("test", "val", "train")}
    disk.write_metadata(
        tmp_path,
        [{"site": s, "file": f"p{i}.png", "patient": f"z{i}", "split": splits[s][i]} for s in "ab" for i in range(3)],
    )
    (found,) = [text for text in texts(tmp_path, "warning") if "patients" in text]
    assert found.startswith("patients in train at one site and in test at another: 2, such as 'z0' at a and b; ")
