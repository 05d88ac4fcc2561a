"""Writes the site: the guides, and the API of what is public.

    python docs/site/build.py FOLDER

pdoc renders both: a guide is to it the docstring of a module. Pages lie as their sources do in
the repository, so that a link from one to another leads there. Nothing is written for a guide that
none of the others leads to; a link that leads nowhere is an error, too.
"""

from __future__ import annotations

import html.parser
import importlib
import inspect
import pathlib
import re
import shutil
import sys
import types
import urllib.parse

import pdoc
import pdoc.doc
import pdoc.render

from keras_lightnets.networks.options import NetworkOptions

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODULES = (
    "keras_lightnets",
    "keras_lightnets.layers",
    "keras_lightnets.preprocessing",
    "keras_lightnets.serving",
    "lightnets.fit",
)
_KERAS = re.compile(r"keras\.src\.(\w+)\.(?:\w+\.)*(\w+)")
_LINK = re.compile(r"(?<=\]\()([^):#\s]+)(?=[)#])")


def guides() -> tuple[str, ...]:
    """Returns the guides in the order in which a reader of README.md's last table meets them.

    Raises:
        ValueError: He never meets one of them.
    """
    met = ["README.md"]
    for name in met:  # which grows
        folder, text = (ROOT / name).parent, (ROOT / name).read_text(encoding="utf-8")
        for link in _LINK.findall(text.partition("\n## More\n")[2] or text):
            place = str((folder / link).resolve().relative_to(ROOT))
            if place.endswith(".md") and place not in met:
                met.append(place)
    if orphans := {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")} - set(met):
        raise ValueError(f"No guide links to {', '.join(sorted(orphans))}.")
    return tuple(met)


GUIDES = guides()


class _Written(str):
    """An annotation that is shown as its author wrote it."""

    def __repr__(self) -> str:
        return str(self)


def page_of(guide: str) -> str:
    """Returns the name of a guide's page as pdoc names modules: with dots, without `.html`."""
    return "index" if guide == "README.md" else guide.removesuffix(".md").replace("/", ".")


def guide(name: str, site: pathlib.Path) -> pdoc.doc.Module:
    """Returns a guide as a module, and copies what it links to that is no page."""
    source = ROOT / name

    def linked(match: re.Match[str]) -> str:
        target = (source.parent / match[1]).resolve().relative_to(ROOT)
        place = str(target)
        if place in GUIDES:
            place = page_of(place).replace(".", "/") + ".html"
        else:
            (site / target).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / target, site / target)
        return "../" * name.count("/") + place

    module = types.ModuleType(page_of(name), _LINK.sub(linked, source.read_text()))
    module.__dict__["__docformat__"] = "markdown"
    return pdoc.doc.Module(module)


def reference(name: str) -> pdoc.doc.Module:
    """Returns a public module, its lazy imports done: pdoc looks only at what is there."""
    module = importlib.import_module(name)
    vars(module).update({each: getattr(module, each) for each in getattr(module, "__all__", ())})
    return pdoc.doc.Module(module)


def tidy(namespace: pdoc.doc.Namespace) -> None:
    """Makes a module, or a class, and all in it readable."""
    for name, member in list(namespace.members.items()):
        if not member.taken_from[0].startswith(("keras_lightnets", "lightnets")):
            del namespace.members[name]  # inherited from Keras, whose pages are elsewhere
        elif isinstance(member, pdoc.doc.Function):
            show_as_written(member)
            list_shared_arguments(member)
        elif isinstance(member, pdoc.doc.Class):
            # Keras' classes by the names that they are imported by.
            member.bases = [
                (*base[:2], _KERAS.sub(r"keras.\1.\2", base[2])) for base in member.bases
            ]
            tidy(member)


def show_as_written(function: pdoc.doc.Function) -> None:
    """Takes the annotations from the source: `keras.Model` instead of the module it lies in."""
    written = function.signature
    try:
        source = inspect.signature(function.obj)
    except (TypeError, ValueError):  # built in
        return
    parameters = [
        parameter.replace(annotation=_Written(source.parameters[name].annotation))
        if isinstance(getattr(source.parameters.get(name), "annotation", None), str)
        else parameter
        for name, parameter in written.parameters.items()
    ]
    returned = source.return_annotation
    if isinstance(returned, str):
        written = written.replace(return_annotation=_Written(returned))
    function.signature = written.replace(parameters=parameters)


def list_shared_arguments(function: pdoc.doc.Function) -> None:
    """Puts the arguments of `NetworkOptions` where a docstring has `**options`."""
    options = function.signature.parameters.get("options")
    if options is None or NetworkOptions.__name__ not in str(options.annotation):
        return
    described = inspect.cleandoc(NetworkOptions.__doc__ or "").partition("Attributes:\n")[2]
    kinds = {name: kind.__forward_arg__ for name, kind in NetworkOptions.__annotations__.items()}
    shared = re.sub(r"^ {4}(\w+):", lambda m: f"    {m[1]} ({kinds[m[1]]}):", described, flags=re.M)
    before, after = re.split(r"(?m)^ {4}\*\*options:(?:.*\n)(?: {8}.*\n)*", function.docstring)
    function.docstring = f"{before}{shared}\n{after}"


class _Read(html.parser.HTMLParser):
    """Notes what a page links to, and where links may lead in it."""

    def __init__(self, page: str):
        super().__init__()
        self.links: list[str] = []
        self.places: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Notes one element."""
        for key, value in attrs:
            if key in ("href", "src") and value:
                self.links.append(value)
            elif key == "id" and value:
                self.places.add(value)


def dead_links(site: pathlib.Path) -> list[str]:
    """Returns a line for each link within the site that leads to no file, or no place in it."""
    pages = {path: _Read(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}
    dead = []
    for path, page in pages.items():
        for link in page.links:
            url = urllib.parse.urlsplit(link)
            if url.scheme or url.netloc:
                continue
            target = (path.parent / urllib.parse.unquote(url.path)).resolve() if url.path else path
            known = pages.get(target)
            place = urllib.parse.unquote(url.fragment)
            if not target.is_file() or (place and known and place not in known.places):
                dead.append(f"{path.relative_to(site)} links to {link}")
    return dead


def build(site: pathlib.Path) -> None:
    """Writes all pages into the folder `site`.

    Raises:
        ValueError: A link leads nowhere.
    """
    site = site.resolve()
    pdoc.render.configure(docformat="google", template_directory=pathlib.Path(__file__).parent)
    pages = {page_of(name): guide(name, site) for name in GUIDES}
    api = {name: reference(name) for name in MODULES}
    for module in api.values():
        tidy(module)
    # What the list at the side calls them: a guide by its heading.
    pdoc.render.env.globals["guides"] = {
        name: page.docstring.partition("\n")[0].lstrip("# ") for name, page in pages.items()
    }
    modules = pages | api
    for name, module in modules.items():
        path = site / f"{name.replace('.', '/')}.html"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(pdoc.render.html_module(module, modules), encoding="utf-8")
    (site / "search.js").write_text(pdoc.render.search_index(modules), encoding="utf-8")
    if dead := dead_links(site):
        raise ValueError("\n".join(["Links lead nowhere:", *dead]))


if __name__ == "__main__":
    build(pathlib.Path(sys.argv[1]))
