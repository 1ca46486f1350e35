"""A hook of MkDocs: pages of the site whose text lies elsewhere in the repository, so that no text is in two places.

Links between documents are written as they work in the repository. Here those that leave ``docs/`` are rewritten to the
page or file of the site that has the same content.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent

ELSEWHERE = {
    "README.md": "index.md",
    "ARCHITECTURE.md": "architecture.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "LICENSE": "LICENSE.txt",
    "deploy/ray/Dockerfile": "ray.Dockerfile.txt",
    "deploy/ray/kuberay.yaml": "kuberay.yaml",
    "deploy/ray/serve.yaml": "serve.yaml",
    "docker/kubernetes.yaml": "kubernetes.yaml",
    "examples/brackets.jsonl": "brackets.jsonl",
    "examples/colours.jsonl": "colours.jsonl",
    "examples/grader/sentence_grader.py": "sentence_grader.py.txt",
    "steering_profiles/shipped/factual-recall.html": "reports/factual-recall.html",
    "steering_profiles/shipped/parentheses.html": "reports/parentheses.html",
}
"""Path in the repository -> path in the site's sources."""

_SAME = {"steering_profiles/shipped/factual-recall.md", "steering_profiles/shipped/parentheses.md"}
"""Reports that the site has as HTML."""

_LINK = re.compile(r"\]\((?!https?://)([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages and files that lie outside of ``docs/``."""
    for source, target in ELSEWHERE.items():
        files.append(File.generated(config, target, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite the links to other documents of the repository."""
    here = page.file.src_uri
    in_repository = next((source for source, target in ELSEWHERE.items() if target == here), f"docs/{here}")

    def rewritten(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(in_repository), link[1]))
        target = re.sub(r"\.md$", ".html", target) if target in _SAME else target
        on_site = ELSEWHERE.get(target, target.removeprefix("docs/"))
        return f"]({posixpath.relpath(on_site, posixpath.dirname(here) or '.')}{link[2] or ''})"

    return _LINK.sub(rewritten, markdown)
