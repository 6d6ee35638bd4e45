"""Hooks of mkdocs: the README is the first page, decisions are listed, and links to files of the repository lead to
copies of them on the site.
"""

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
_LINK = re.compile(r"(\]\()([^)#\s:]+)((?:#[^)\s]*)?\))")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    readme = (
        (ROOT / "README.md")
        .read_text(encoding="utf-8")
        .replace("](docs/decisions/)", "](decisions/index.md)")
    )
    files.append(File.generated(config, "index.md", content=_LINK.sub(_from_the_top, readme)))
    files.append(File.generated(config, "decisions/index.md", content=_decisions()))
    there = {file.src_uri for file in files}
    for page in [file for file in files if file.is_documentation_page()]:
        for target in _outside(page.src_uri, page.content_string):
            if target not in there:
                files.append(File.generated(config, target, abs_src_path=str(ROOT / target)))
                there.add(target)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links that lead out of docs/, to where the files lie on the site."""
    here = posixpath.dirname(page.file.src_uri)

    def inside(link: re.Match[str]) -> str:
        target = _target(page.file.src_uri, link[2])
        return link[1] + (posixpath.relpath(target, here or ".") if target else link[2]) + link[3]

    return _LINK.sub(inside, markdown)


def _from_the_top(link: re.Match[str]) -> str:
    """Links of the README, as if it lay in docs/."""
    place = link[2].removeprefix("docs/") if link[2].startswith("docs/") else f"../{link[2]}"
    return link[1] + place + link[3]


def _outside(source: str, markdown: str) -> Iterator[str]:
    for _, place, _ in _LINK.findall(markdown):
        target = _target(source, place)
        if target is not None and (ROOT / target).is_file():
            yield target


def _target(source: str, place: str) -> str | None:
    """The file of the repository that a link leads to, None for one of docs/."""
    found = posixpath.normpath(posixpath.join("docs", posixpath.dirname(source), place))
    return None if found.startswith("docs/") or source.startswith("benchmarks/") else found


def _decisions() -> str:
    lines = ["# Decisions", ""]
    for path in sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md")):
        title = path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
        lines.append(f"- [{title}]({path.name})")
    return "\n".join(lines) + "\n"
