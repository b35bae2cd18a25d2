"""The documentation site builds without a warning, and every link on it leads somewhere."""

import importlib.util
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote, urlsplit

import pytest

import rankscope

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


class Links(HTMLParser):
    """Targets of links and images, and the ids that links may lead to."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.ids: set[str] = set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src") and value:
                self.targets.append(value)
            elif name == "id" and value:
                self.ids.add(value)


@pytest.fixture(scope="module")
def builder() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build", ROOT / "docs" / "site" / "build.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def site(builder: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")

    def one_figure(folder: Path, results: Path | None) -> Iterator[str]:
        yield "# Gallery"  # figures take most of the time, and have tests of their own

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builder, "gallery_page", one_figure)
        patch.setattr("sys.argv", ["build.py", str(out)])
        builder.main()
    return out


def test_every_link_within_the_site_leads_somewhere(site: Path) -> None:
    pages = {path: Links(path) for path in site.rglob("*.html")}
    assert len(pages) > 15
    broken = []
    for path, links in pages.items():
        for target in links.targets:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            to = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not to.is_file() or (
                parts.fragment and to in pages and unquote(parts.fragment) not in pages[to].ids
            ):
                broken.append(f"{path.relative_to(site)}: {target}")
    assert broken == []


def test_every_public_name_and_command_is_on_it(site: Path) -> None:
    names = Links(site / "api.html").ids
    for name in set(rankscope.__all__) - {"plots", "relora"}:
        assert names & {f"rankscope.{name}", f"module-rankscope.{name}"}
    commands = (site / "commands.html").read_text(encoding="utf-8")
    for command in ("analyze", "evaluate", "report", "data prepare"):
        assert f"Usage: rankscope {command}" in commands


def test_a_link_that_leads_nowhere_stops_the_build(
    builder: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(folder: Path, results: Path | None) -> None:
        (folder / "index.md").write_text("# Title\n\n[a page](missing.md)\n")

    monkeypatch.setattr(builder, "stage", broken)
    monkeypatch.setattr("sys.argv", ["build.py", str(tmp_path)])
    with pytest.raises(builder.subprocess.CalledProcessError):
        builder.main()
