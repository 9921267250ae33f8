"""Reading of a plain folder of sites: class folders, or images with masks, with or without tables."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from harmofl.data.layout.class_inference import infer_info
from harmofl.data.layout.declared import FILE, read_declared
from harmofl.data.layout.file_names import composed, folded, owner_of
from harmofl.data.layout.listing import SiteFolder, list_site
from harmofl.data.layout.metadata import FILE as METADATA
from harmofl.data.layout.metadata import TableRow, read_metadata
from harmofl.data.layout.name_meanings import meaning
from harmofl.data.layout.site_files import ALL_FOR_TESTING, AT_RANDOM, FederationFiles, SiteFiles
from harmofl.data.layout.site_search import find_sites
from harmofl.data.manifest import MOST_CLASSES
from harmofl.data.splits import with_missing, with_splits
from harmofl.errors import DataError
from harmofl.types import Task
from harmofl.utils.grouping import grouped


def read_folders(
    root: Path,
    split_column: str | None,
    patient_column: str | None,
    *,
    seed: int,
    fractions: tuple[float, float, float],
    expected: tuple[Task, tuple[str, ...]] | None = None,
) -> FederationFiles:
    """List the sites and images of a plain folder; arguments and errors as in `reader.read_layout`."""
    table = read_metadata(root, split_column=split_column, patient_column=patient_column)
    rows = table.rows if table else None
    found = _federation(root, find_sites(root, rows), rows, seed, fractions, expected)
    if table and table.unused:
        unused = f"{METADATA}: columns that are not used: {', '.join(table.unused)}"
        found = replace(found, said=(*found.said, unused))
    return found


def _federation(
    root: Path,
    found: Sequence[SiteFolder],
    rows: Sequence[TableRow] | None,
    seed: int,
    fractions: tuple[float, float, float],
    expected: tuple[Task, tuple[str, ...]] | None,
) -> FederationFiles:
    task = _one_task(root, found)
    by_site = _rows_by_site(root, rows, [site.name for site in found])
    sites = [list_site(replace(site, task=task, rows=by_site.get(site.name))) for site in found]
    told = rows is not None and any(row.split for row in rows)
    sites = [site if told else _split(site, task, fractions, seed) for site in sites]
    declared, said = _declared(found, root) if task == "segmentation" else ((), [])
    given = expected if expected and expected[0] == task else None
    if given and declared:
        _check_order(root, declared, given[1])
    info = infer_info(root.resolve().name, task, sites, given or ((task, declared) if declared else None))
    if task == "classification":
        _refuse_patients(root, info.classes, rows or ())
        fix = "add the others as folders <site>/<class>/, or a column label to metadata.csv"
        check_classes(root, () if given else info.classes, fix)
    return FederationFiles(info, tuple(sites), tuple(said))


def read_list(
    path: Path,
    *,
    seed: int,
    fractions: tuple[float, float, float],
    expected: tuple[Task, tuple[str, ...]] | None = None,
) -> FederationFiles:
    """Read a MONAI data list, a JSON file, as one site; arguments and errors as in `read_folders`."""
    found = read_declared(path)
    if not found or not found.records:
        raise DataError(
            f"{path}: must list images under training, each with an image and a label, but lists none; give a folder"
        )
    site = SiteFolder(path.resolve().parent.name, path.parent, found.task, listed=found)
    return _federation(path.resolve().parent, [site], None, seed, fractions, expected)


def _split(site: SiteFiles, task: Task, fractions: tuple[float, float, float], seed: int) -> SiteFiles:
    """Return the site with the split of its folders (test alone or several splits), else with a random split."""
    given = sorted({record.split for record in site.records} - {""})
    if given == ["val"]:
        raise DataError(
            f"{site.name}: a site must have images for training or testing, but its folders give only val; rename the "
            "folder to test, or add train"
        )
    if given == ["test"]:
        return replace(site, split=ALL_FOR_TESTING)
    if len(given) < 2:
        site = replace(site, records=tuple(replace(record, split="") for record in site.records))
        told = site.table and any(record.patient != owner_of(record.image) for record in site.records)
        said = f"split at random by patient from {site.table}" if told else AT_RANDOM
        return replace(site, records=tuple(with_splits(site.records, task, fractions, seed)), split=said)
    records, drawn = with_missing(site.name, site.records, task, fractions, seed)
    parts = {part for record in site.records for part in record.image.split("/")[:-1] if meaning(part).split}
    said = site.split or f"split by the folders {', '.join(sorted(parts))}"
    return replace(site, records=tuple(records), split=said + "".join(f", {name} drawn from train" for name in drawn))


def _declared(sites: Sequence[SiteFolder], root: Path) -> tuple[tuple[str, ...], list[str]]:
    """Return the class names of dataset.json, if there is one, and messages about these files for the user."""
    above = [] if root in [site.folder for site in sites] else [root]
    paths = dict.fromkeys(site.listed.path if site.listed else site.folder / FILE for site in sites)
    found = [one for path in (*paths, *(folder / FILE for folder in above)) if (one := read_declared(path))]
    said = [f"{one.path}: {one.unlabelled} images without a label are not used" for one in found if one.unlabelled]
    said += [f"{one.path}: keys that are not used: {', '.join(one.unused)}" for one in found if one.unused]
    named = [one for one in found if one.classes]
    for one in named:
        if one.classes != named[0].classes:
            got, first = (", ".join(other.classes) for other in (one, named[0]))
            raise DataError(f"{one.path}: labels must be those of {named[0].path} ({first}), got {got}; use the same")
    return (named[0].classes if named and len(named[0].classes) >= 2 else ()), said


def _check_order(root: Path, declared: Sequence[str], expected: Sequence[str]) -> None:
    """Raise DataError if the masks number the model's classes in another order."""
    if set(declared) == set(expected) and tuple(declared) != tuple(expected):
        want, got = ", ".join(expected), ", ".join(declared)
        raise DataError(f"{root}: {FILE} must have the model's classes in their order, {want}, got {got}; reorder them")


def _refuse_patients(root: Path, classes: Sequence[str], rows: Sequence[TableRow]) -> None:
    """Raise DataError if the class folders have the names of the patients in metadata.csv."""
    if classes and {row.patient for row in rows if not row.target} >= set(classes):
        raise DataError(
            f"{root}: the folders ({', '.join(classes[:3])}) have the names of patients of {METADATA}, so they are not "
            f"classes; give the classes in a column label, or put images and masks into folders images and masks"
        )


def check_classes(root: Path, classes: Sequence[str], fix: str) -> None:
    """Raise DataError unless there are 2 to `MOST_CLASSES` classes; missing images are reported later."""
    if classes and not 2 <= len(classes) <= MOST_CLASSES:
        got = f"only {classes[0]!r}" if len(classes) == 1 else f"{len(classes)}"
        raise DataError(f"{root}: there must be 2 to {MOST_CLASSES} classes, got {got}; {fix}")


def _one_task(root: Path, sites: Sequence[SiteFolder]) -> Task:
    """Return the common task of all sites with images; if there are none, empty sites are reported later."""
    known = [(site.name, site.task) for site in sites if site.task]
    if not known:
        return "classification"
    (first, task), *others = known
    for name, other in others:
        if other != task:
            raise DataError(
                f"{root}: all sites must have one task, but {first} is {task} and {name} is "
                f"{other}; keep the sites of each task in a separate folder"
            )
    return task


def _rows_by_site(root: Path, rows: Sequence[TableRow] | None, names: Sequence[str]) -> dict[str, tuple[TableRow, ...]]:
    if rows is None:
        return {}
    if len(names) == 1:
        rows = [replace(row, site=row.site or names[0]) for row in rows]
    alike = grouped(names, folded)
    known = {form: found[0] for form, found in alike.items() if len(found) == 1}
    known |= {composed(name): name for name in names}
    rows = [replace(row, site=known.get(row.site) or known.get(folded(row.site), row.site)) for row in rows]
    for row in rows:
        if row.site not in names:
            got, fix = (repr(row.site), "mend the row") if row.site else ("no such column", "add a column site")
            place = f"{root / METADATA}:{row.line}"
            raise DataError(f"{place}: site must be a folder here ({', '.join(names)}), got {got}; {fix}")
    return {name: tuple(row for row in rows if row.site == name) for name in names}
