"""What the documentation says is so: its code runs, its lines are there, its links lead somewhere."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from browser import needs_browser, opened

from harmofl.methods import METHODS

ROOT = Path(__file__).parent.parent
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
by_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


@pytest.fixture(scope="module")
def place(federation: Path, finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the code of the pages finds what it names: a run, and images of a site that did not train."""
    folder = tmp_path_factory.mktemp("place")
    shutil.copytree(finished_run, folder / "runs" / "hospitals-harmofl-seed0")
    shutil.copytree(federation / "site-1" / "images", folder / "newcomers" / "vienna" / "images")
    shutil.copytree(federation / "site-1" / "masks", folder / "newcomers" / "vienna" / "masks")
    return folder


@by_page
def test_python_in_the_documentation_runs(page: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL):
        exec(compile(block, str(page), "exec"), {})


@by_page
def test_links_lead_to_files(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_lines_of_the_methods_page_are_in_the_code() -> None:
    text = (ROOT / "docs" / "methods.md").read_text()
    rows = re.findall(r"\| `([\w-]+)` \| .+? \| .+? \| `([\w/]+\.py)`, `[\w.]+` \| `(.+?)` \|\n", text)
    assert len(rows) == text.count(".py`, `")
    assert {name for name, _, _ in rows} == set(METHODS) - {"harmofl-released"}
    for _, file, line in rows:
        assert line.replace("\\|", "|") in (ROOT / "src" / "harmofl" / file).read_text(), line


def test_the_architecture_names_every_folder() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    folders = {path.name for path in (ROOT / "src" / "harmofl").iterdir() if (path / "__init__.py").exists()}
    assert set(re.findall(r"^\| `(\w+)` \|", text, flags=re.MULTILINE)) == folders


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The documentation, built as `make docs` does; a warning would stop it."""
    pytest.importorskip("mkdocs", reason="needs mkdocs: pip install 'harmofl[docs]'")
    folder = tmp_path_factory.mktemp("docs") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return folder


def test_the_site_has_every_page_and_the_reference(site: Path) -> None:
    pages = {page.relative_to(ROOT / "docs").with_suffix("") for page in (ROOT / "docs").rglob("*.md")}
    assert pages <= {page.relative_to(site).with_suffix("") for page in site.rglob("*.html")}
    reference = (site / "api.html").read_text(encoding="utf-8")
    assert "harmofl.AmplitudeNorm" in reference
    assert "harmofl.perturbed" in reference


def test_links_of_the_site_lead_to_pages_and_name_files(site: Path) -> None:
    text = (site / "results" / "speed.html").read_text(encoding="utf-8")
    assert 'href="../speed.html#what-threads-change"' in text
    assert "configs/nuclei.toml (<code>configs/nuclei.toml</code>)" in text


@needs_browser
@pytest.mark.parametrize(("size", "scheme"), [("laptop", "light"), ("phone", "dark"), ("print", "light")])
def test_the_site_in_a_browser(site: Path, tmp_path: Path, size: str, scheme: str) -> None:
    with opened((site / "index.html").as_uri(), size, scheme) as seen:
        for page in ("index", "tutorial", "api"):
            seen.page.goto((site / f"{page}.html").as_uri())
            assert seen.page.locator("h1").is_visible()
            assert seen.overflow <= 0, page
            seen.shoot(f"docs-{page}-{size}-{scheme}", tmp_path)
        assert all(url.startswith(("file:", "data:")) for url in seen.requests)
