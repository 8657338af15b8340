"""What a page of the documents shows: its blocks with their markers, its headings and its links."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).resolve().parents[2]
SHELL = {"", "sh", "bash", "console", "shell"}
DATA = {"json", "toml", "yaml"}
PROGRAMS = {"js", "ts", "rust", "c", "python", "zig"}
# What says nothing that could be executed.
PICTURES = {"text", "mermaid"}


@dataclass
class Block:
    """One fenced block. The first word behind the fence is the language, which is all that readers see the effect of."""

    line: int
    language: str
    words: list
    text: str
    skipped: str = ""
    options: dict = field(default_factory=dict)

    @property
    def verb(self):
        return self.words[0] if self.words else ""


@dataclass
class Page:
    path: Path
    blocks: list
    links: list
    anchors: set
    demo: bool

    @property
    def name(self):
        return str(self.path.relative_to(ROOT))


def block(token):
    marker, _, skipped = token.info.partition("skip:")
    language, *words = marker.split() or [""]
    if token.info.startswith(("skip:", " skip:")):
        language, words = "", []
    options = dict(word.split("=", 1) for word in words if "=" in word)
    words = [word for word in words if "=" not in word]
    return Block(token.map[0] + 1, language, words, token.content, skipped.strip(), options)


def slug(heading, taken):
    """The anchor that GitHub and mdBook give to a heading."""
    base = re.sub(r"[^\w\- ]", "", heading.strip().lower(), flags=re.UNICODE).replace(" ", "-")
    name, number = base, 0
    while name in taken:
        number += 1
        name = f"{base}-{number}"
    return name


def read(path):
    tokens = MarkdownIt("commonmark").enable("table").parse(path.read_text())
    blocks, links, anchors, demo = [], [], set(), False
    for index, token in enumerate(tokens):
        if token.type == "fence":
            blocks.append(block(token))
        elif token.type == "code_block" and path.suffix == ".md":
            blocks.append(Block(token.map[0] + 1, "indented", [], token.content))
        elif token.type == "html_block":
            demo |= token.content.strip() == "<!-- with a market -->"
            anchors.update(re.findall(r'<a (?:id|name)="([^"]+)"', token.content))
        elif token.type == "heading_open":
            inline = tokens[index + 1]
            plain = "".join(child.content for child in inline.children if child.type in ("text", "code_inline"))
            anchors.add(slug(plain, anchors))
        elif token.type == "inline":
            for child in token.children:
                if child.type == "link_open":
                    links.append((token.map[0] + 1, child.attrs["href"]))
                elif child.type == "image":
                    links.append((token.map[0] + 1, child.attrs["src"]))
                elif child.type == "html_inline":
                    anchors.update(re.findall(r'<a (?:id|name)="([^"]+)"', child.content))
    return Page(path, blocks, links, anchors, demo)
