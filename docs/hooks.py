"""What MkDocs takes from the repository: version, options, API, checklists, changelog, results."""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import gald

ROOT = Path(__file__).parents[1]
CONF, SOURCE = ROOT / "conf", ROOT / "src" / "gald"
README_RESULTS = "[The results in the README](../README.md#results)"
OUTSIDE = re.compile(r"\]\(\.\./conf/([\w/]+)/(\w+)\.yaml\)")
# Files of the repository that are pages of the site, by page.
COPIED = {"contributing.md": ".github/CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}
LINK = re.compile(r"\[([^\]]*)\]\((?!\w+:|#)([^)#\s]+)(#[^)\s]*)?\)")
API_START = "[From Python](../../python.md) is the page to start with; this is the reference.\n\n"

CELL = re.compile(r"(<td[^>]*>)(.*?)(?=</td>)", re.DOTALL)
CODE_OR_TAG = re.compile(r"(<code.*?</code>|<[^>]*>)", re.DOTALL)
_NUMBER = r"[+±-]?\d[\d.,]*"
_UNIT = r"(?:%|[kMGT]i?B|GMACs|ms|s|min|h|px|points|images|(?:CPU )?cores?)(?!\w)"
# Numbers that belong together, and a number with its unit.
TOGETHER = re.compile(
    rf"(?<![\w.]){_NUMBER}(?:(?:(?: ?[/±] ?| to ){_NUMBER})+(?: {_UNIT})?| {_UNIT})"
)


def on_config(config: MkDocsConfig) -> None:
    """Show the version, and put what is generated at the end of the navigation."""
    config.site_name = f"{config.site_name} {gald.__version__}"
    groups = [{group: f"options/{_slug(group)}.md"} for group in _groups()]
    assert config.nav is not None
    config.nav += [{"Options": ["options/index.md", *groups]}, {"API": _api_nav()}]


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add the pages."""
    pages = {"options/index.md": _options_index()}
    pages |= {f"options/{_slug(group)}.md": _group_page(group) for group in _groups()}
    pages |= {_api_path(name): f"::: {name}\n" for name in _modules()}
    pages["api/gald/index.md"] = API_START + pages["api/gald/index.md"]
    pages |= {page: _copied((ROOT / name).read_text(), name) for page, name in COPIED.items()}
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead a link to a YAML file, which works on a code host, to that file's place in the site."""
    if page.file.generated_by is None:
        page.meta["search"] = {"boost": 3}  # what was written for people comes first
    if page.file.src_uri == "modules.md":
        page.meta["hide"] = ["navigation", "toc"]  # its tables are wide
    if README_RESULTS in markdown:
        markdown = markdown.replace(README_RESULTS, _readme_results())
    return OUTSIDE.sub(lambda m: f"](options/{_slug(m[1])}.md#{m[2]})", markdown)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Keep numbers in the cells of tables on one line, and mark the tables of modules."""
    html = CELL.sub(lambda m: m[1] + _together(m[2]), html)
    return f'<div class="modules">{html}</div>' if page.file.src_uri == "modules.md" else html


def _together(cell: str) -> str:
    parts = CODE_OR_TAG.split(cell)  # text and tags by turns
    parts[::2] = [TOGETHER.sub(r'<span class="together">\g<0></span>', text) for text in parts[::2]]
    return "".join(parts)


def _copied(text: str, name: str) -> str:
    """Lead the links of a file of the repository to their places in the site.

    A link to a file that is no page becomes its text.
    """
    pages = {file: page for page, file in COPIED.items()} | {"README.md": "index.md"}

    def lead(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(name), link[2]))
        if target.startswith("docs/"):
            place = target.removeprefix("docs/")
        elif target in pages:
            place = pages[target]
        elif target.startswith("conf/") and target.endswith(".yaml"):
            place = f"../{target}"  # see on_page_markdown
        else:
            return link[1]
        return f"[{link[1]}]({place}{link[3] or ''})"

    return LINK.sub(lead, text)


def _readme_results() -> str:
    """The README's table of results and what is said of it, so that no number is typed twice."""
    readme = (ROOT / "README.md").read_text()
    section = readme.split("\n## Results\n", 1)[1].split("\n## ", 1)[0].split("**Does LD", 1)[0]
    return _copied(section, "README.md").strip()


def _groups() -> list[str]:
    found = {path.parent.relative_to(CONF).as_posix() for path in CONF.rglob("*.yaml")}
    return sorted(group for group in found if group not in (".", "local"))


def _slug(group: str) -> str:
    return group.replace("/", "-")


def _options_index() -> str:
    text = ["# Options", "What `gald` composes, as it stands in the YAML files of `conf/`."]
    return "\n\n".join([*text, *(_option(path) for path in sorted(CONF.glob("*.yaml")))])


def _group_page(group: str) -> str:
    text = [f"# {group}", f"One of these is chosen by `{group}=NAME`."]
    if group in ("callbacks", "logger"):
        text[1] = f"Any of these are chosen by `'{group}=[NAME,NAME]'`."
    return "\n\n".join([*text, *(_option(path) for path in sorted((CONF / group).glob("*.yaml")))])


def _option(path: Path) -> str:
    return f"## {path.stem} {{ #{path.stem} }}\n\n```yaml\n{path.read_text().rstrip()}\n```\n"


def _modules() -> list[str]:
    names = []
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE.parent).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        if path.read_text().strip() and not any(part.startswith("_") for part in parts):
            names.append(".".join(parts))
    return names


def _api_path(name: str) -> str:
    package = (SOURCE.parent / name.replace(".", "/")).is_dir()
    return f"api/{name.replace('.', '/')}{'/index' if package else ''}.md"


def _api_nav(package: str = "gald") -> list:
    """The modules of a package as MkDocs nests them: itself first, its packages, its modules."""
    inside = [name for name in _modules() if name.rpartition(".")[0] == package]
    packages = [name for name in inside if _api_path(name).endswith("/index.md")]
    plain = [name for name in inside if name not in packages]
    return [
        {package: _api_path(package)},
        *({name.removeprefix("gald."): _api_nav(name)} for name in packages),
        *({name.rpartition(".")[2]: _api_path(name)} for name in plain),
    ]
