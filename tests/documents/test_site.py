"""The documents as a web site."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.documents.reading import ROOT

pytest.importorskip("mkdocs", reason="make venv installs it")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert built.returncode == 0, built.stdout + built.stderr
    assert not built.stdout + built.stderr
    return folder


def test_the_readme_is_the_front_page(site: Path):
    assert '<h1 id="steering-server">steering-server' in (site / "index.html").read_text(encoding="utf-8")


def test_links_lead_to_pages_of_the_site(site: Path):
    pages = [*site.glob("*.html")]
    assert len(pages) > 15
    for page in pages:
        for target in re.findall(r'href="([^"#]+)', page.read_text(encoding="utf-8")):
            if page.name != "404.html" and not target.startswith(("http://", "https://")):
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_pages_load_nothing_from_other_hosts(site: Path):
    loading = re.compile(
        r"""<(?:script|link|img|iframe)[^>]*(?:src|href)=["']?(?:https?:)?//|url\(["']?(?:https?:)?//|@import"""
    )
    for file in (*site.rglob("*.html"), *site.rglob("*.css")):
        assert not loading.search(file.read_text(encoding="utf-8")), file.name
