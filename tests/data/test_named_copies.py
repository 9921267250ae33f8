"""Copies among many sites are found without a comparison of every pair of sites."""

from pathlib import Path

import pytest

from harmofl.data.checks import named_copies
from harmofl.data.checks.named_copies import copies_by_name
from harmofl.data.layout.site_files import FederationFiles, SiteFiles
from harmofl.data.manifest import FederationInfo, Record


def federation(folder: Path, contents: list[list[bytes]]) -> FederationFiles:
    """Sites whose k-th file has one name everywhere."""
    sites = []
    for number, files in enumerate(contents):
        site = folder / f"site{number:02d}"
        site.mkdir()
        for k, content in enumerate(files):
            (site / f"{k}.png").write_bytes(content)
        records = tuple(Record(f"{k}.png", "a", f"p{k}", f"{k}", "train") for k in range(len(files)))
        sites.append(SiteFiles(site.name, site, records))
    return FederationFiles(FederationInfo("f", "classification", ("a", "b"), 3), tuple(sites))


def test_many_sites_give_the_warnings_of_all_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sites 3, 4 and 9 share files; site 5 has one of the same size and another beginning, site 6 another middle."""
    contents = [[f"{site} first {site:07d}".encode(), b"%02d" % site * 100] for site in range(12)]
    contents[9][0] = contents[4][0] = contents[3][0]
    contents[9][1] = contents[3][1]
    contents[5][1] = b"x" + contents[3][1][1:]
    contents[6][1] = contents[3][1][:100] + b"x" + contents[3][1][101:]
    files = federation(tmp_path, contents)
    pairs = [str(problem) for problem in copies_by_name(files, training=True)]
    named = [(line[:6], line.split("as ")[1][:6]) for line in pairs]
    assert named == [("site03", "site04"), ("site03", "site09"), ("site04", "site09")]
    monkeypatch.setattr(named_copies, "_FEW_SITES", 2)
    assert [str(problem) for problem in copies_by_name(files, training=True)] == pairs


def test_no_more_than_some_pairs_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(named_copies, "_FEW_SITES", 2)
    monkeypatch.setattr(named_copies, "_MOST_PAIRS", 4)
    problems = list(copies_by_name(federation(tmp_path, [[b"the same"]] * 5), training=True))
    assert len(problems) == 5
    assert str(problems[-1]) == "more than 4 pairs of sites hold the same files; the others are not listed"
