"""Every relative link and anchor of every Markdown file leads somewhere, and the book lists every page once."""

import re
import subprocess
from urllib.parse import unquote

from page import ROOT, read


def markdown():
    """The Markdown files of the repository, those that are not committed yet among them."""
    listed = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"], cwd=ROOT, check=True,
                            capture_output=True, text=True).stdout.split("\n")
    return sorted({ROOT / name for name in listed if name and (ROOT / name).exists()})


def check():
    """How many links there are, and what is wrong."""
    pages = {path: read(path) for path in markdown()}
    count, wrong = 0, []
    for page in pages.values():
        for line, target in page.links:
            if "://" in target or target.startswith("mailto:"):
                continue
            count += 1
            file, _, anchor = unquote(target).partition("#")
            path = (page.path.parent / file).resolve() if file else page.path
            if not path.exists():
                wrong.append(f"{page.name}:{line}: {target} leads nowhere")
            elif anchor and (path not in pages or anchor not in pages[path].anchors):
                wrong.append(f"{page.name}:{line}: {target}: there is no such heading")
    return count, wrong + summary(pages) + proofs(pages)


def proofs(pages):
    """A test that a page names as `file.rs::name` is there."""
    wrong = []
    for page in pages.values():
        for file, name in re.findall(r"`((?:\w+/)?\w+\.rs)::(\w+)`", page.path.read_text()):
            source = ROOT / "tests/it" / file
            if not source.exists() or f"fn {name}(" not in source.read_text():
                wrong.append(f"{page.name}: there is no test {file}::{name}")
    return wrong


def summary(pages):
    """The book lists every page of docs/ once, and nothing else."""
    book = ROOT / "docs"
    contents = book / "SUMMARY.md"
    listed = [(line, (book / target).resolve()) for line, target in pages[contents].links]
    there = {path for path in pages if path.is_relative_to(book) and path != contents}
    wrong = [f"docs/SUMMARY.md: {path.relative_to(ROOT)} is not listed" for path in sorted(there - {path for _, path in listed})]
    seen = set()
    for line, path in listed:
        if path not in there:
            wrong.append(f"docs/SUMMARY.md:{line}: {path.name} is no page of the book")
        if path in seen:
            wrong.append(f"docs/SUMMARY.md:{line}: {path.name} is listed twice")
        seen.add(path)
    return wrong
