"""Lays the pages out as a site has them: those of other folders among those of docs/, with links that lead to one another.

Writes build/site-pages, and build/mkdocs.yml with the order of docs/README.md. `make docs` runs it.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from os.path import relpath
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build"
PAGES = BUILD / "site-pages"

_LINK = re.compile(r"(?P<image>!?)\[(?P<text>(?:[^\[\]]|\[[^\]]*\])*)\]\((?P<target>[^)\s]+)\)")
_CODE = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
_PATHS = re.compile(r"^\[Comity\]\([^)]*\).*\n+", re.MULTILINE)

API = {
    "index.md": ("Python API", "comity", ["simulate", "connect", "load_model", "protocol_names", "terms", "version"]),
    "parties.md": ("Parties and results", "comity.front", ["party.Party", "result.Result", "table.Rounds"]),
    "nodes.md": ("Nodes", "comity.front.connection", ["Node", "Session"]),
    "errors.md": ("Errors", "comity.errors", [""]),
}
"""Pages of the Python API: title, module, and what of it."""


def placed() -> dict[Path, PurePosixPath]:
    """Where each page of the repository is on the site."""
    found = {ROOT / "README.md": PurePosixPath("index.md")}
    for name in ("CONTRIBUTING.md", "CHANGELOG.md"):
        found[ROOT / name] = PurePosixPath(name.lower())
    for page in sorted((ROOT / "docs").rglob("*.md")):
        path = PurePosixPath(page.relative_to(ROOT / "docs").as_posix())
        found[page] = PurePosixPath("documentation.md") if path.name == "README.md" and path.parent.name == "" else path
    found[ROOT / "docs" / "decisions" / "README.md"] = PurePosixPath("decisions/index.md")
    for page in sorted((ROOT / "shared" / "comity" / "protocols").glob("*/README.md")):
        found[page] = PurePosixPath(f"protocols/{page.parent.name.replace('_', '-')}.md")
    found[ROOT / "deploy" / "kubernetes" / "README.md"] = PurePosixPath("kubernetes.md")
    found[ROOT / "examples" / "README.md"] = PurePosixPath("examples.md")
    return found


def with_links(page: Path, text: str, places: dict[Path, PurePosixPath]) -> str:
    """A page's text with links as the site has them; what is no page, such as a file of code, is named and not linked."""

    def moved(found: re.Match[str]) -> str:
        target, _, anchor = found["target"].partition("#")
        if not target or "://" in found["target"] or found["target"].startswith("mailto:"):
            return found[0]
        path = (page.parent / target).resolve()
        if found["image"] or path.suffix in {".svg", ".png"}:
            place = PurePosixPath(path.relative_to(ROOT / "docs").as_posix())
        elif path in places or path / "README.md" in places:
            place = places.get(path) or places[path / "README.md"]
        else:
            return found["text"]
        to = relpath(place, places[page].parent)
        return f"{found['image']}[{found['text']}]({to}{'#' + anchor if anchor else ''})"

    # Code is no link, whatever it looks like.
    parts = _CODE.split(text)
    parts[::2] = [_LINK.sub(moved, part) for part in parts[::2]]
    return "".join(parts)


def sections() -> Iterator[tuple[str, list[tuple[str, Path]]]]:
    """The sections of docs/README.md, with the titles and the files of their pages."""
    index = ROOT / "docs" / "README.md"
    for section in re.split(r"^## ", index.read_text(), flags=re.MULTILINE)[1:]:
        title, _, body = section.partition("\n")
        found = re.findall(r"^- \[([^\]]+)\]\(([^)#]+)\)", body, re.MULTILINE)
        yield title.strip(), [(name, (index.parent / target).resolve()) for name, target in found]


def lay_out() -> None:
    """Writes the pages and the order that they come in."""
    shutil.rmtree(PAGES, ignore_errors=True)
    places = placed()
    for page, place in places.items():
        target = PAGES / place
        target.parent.mkdir(parents=True, exist_ok=True)
        # The site says where a page is.
        target.write_text(with_links(page, _PATHS.sub("", page.read_text(), count=1), places))
    for picture in (ROOT / "docs").rglob("*"):
        if picture.suffix in {".svg", ".png"}:
            target = PAGES / picture.relative_to(ROOT / "docs")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(picture, target)
    lines = ["INHERIT: ../mkdocs.yml", "docs_dir: site-pages", "site_dir: site", "nav:", "  - index.md"]
    named = {ROOT / "README.md"}
    for title, pages in sections():
        lines.append(f"  - {title!r}:")
        for name, path in pages:
            page = path if path in places else path / "README.md"
            named.add(page)
            lines.append(f"    - {name!r}: {places[page]}")
            if places[page].name == "index.md" and places[page].parent.name == "decisions":
                below = [each for each in places if places[each].parent.name == "decisions" and each != page]
                lines += [f"    - {places[each]}" for each in below]
                named |= set(below)
    lines.append("  - 'Python API':")
    for file, (title, module, names) in API.items():
        text = "".join(f"::: {module}.{name}\n\n" if name else f"::: {module}\n\n" for name in names)
        (PAGES / "api").mkdir(parents=True, exist_ok=True)
        (PAGES / "api" / file).write_text(f"# {title}\n\n{text}")
        lines.append(f"    - {title!r}: api/{file}")
    lines.append("  - 'More':")
    lines += [f"    - {places[page]}" for page in places if page not in named]
    (BUILD / "mkdocs.yml").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    lay_out()
