"""The configuration of Sphinx: `uv run --group docs sphinx-build -W docs docs/_build/html`.

Pages that are made of files outside this folder (the examples with their figures, the notebooks,
the benchmarks, CONTRIBUTING.md, CHANGELOG.md) are written to `docs/generated` first. In all pages
links to such files become links to their pages; links to other files become downloads.
"""

import ast
import os
import pathlib
import re
import shutil

from docutils import nodes
from sphinx.domains.python import PyObject
from sphinx.util import inspect
from sphinx.util.nodes import make_refnode

import nt_residual

project = "nt_residual"
author = "The nt_residual authors"
copyright = author
version = release = nt_residual.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
exclude_patterns = ["_build", "_static", "_templates"]
templates_path = ["_templates"]
# Names in single backticks lead to their documentation where they have one.
default_role = "py:obj"

nb_execution_mode = "off"
myst_heading_anchors = 3
# `site:` is a file of the site that Sphinx does not make.
myst_url_schemes = {"http": None, "https": None, "mailto": None, "site": "{{path}}"}
napoleon_use_ivar = True
# Without it the names of scikit-learn's attributes lose the underscore at their end.
strip_signature_backslash = True
autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_preserve_defaults = True
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

html_theme = "sphinx_book_theme"
html_title = "nt_residual"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_favicon = "_static/alpha.svg"
html_context = {"default_mode": "auto"}
html_extra_path = ["../examples/report/report.html", "../examples/report/fashion_mnist.html"]
html_theme_options = {
    "show_toc_level": 2,
    "navigation_with_keys": False,
    # There is one search field, in the sidebar.
    "navbar_persistent": [],
    "navbar_start": [],
    "navbar_center": [],
    "navbar_end": [],
}

ROOT = pathlib.Path(__file__).parent.parent
GENERATED = ROOT / "docs" / "generated"
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
NOTEBOOKS = sorted((ROOT / "examples" / "notebooks").glob("*.ipynb"))
REPORTS = sorted((ROOT / "examples" / "report").glob("*.html"))
COPIES = {
    ROOT / "benchmarks" / "README.md": GENERATED / "benchmarks.md",
    ROOT / "CONTRIBUTING.md": GENERATED / "contributing.md",
    ROOT / "CHANGELOG.md": GENERATED / "changelog.md",
}
PAGES = {
    **COPIES,
    **{path: GENERATED / "examples" / f"{path.stem}.md" for path in EXAMPLES},
    **{path: GENERATED / "notebooks" / path.name for path in NOTEBOOKS},
    ROOT / "README.md": ROOT / "docs" / "index.md",
}


def with_links(text: str, source: pathlib.Path, page: pathlib.Path) -> str:
    """Return the Markdown of a file with links that are right in a page of the site."""

    def link(match: re.Match) -> str:
        target, _, heading = match[1].partition("#")
        if "://" in target or not target:
            return match[0]
        path = (source.parent / target).resolve()
        if path in REPORTS:
            return f"](site:{os.path.relpath(ROOT / 'docs' / path.name, page.parent)})"
        path = os.path.relpath(PAGES.get(path, path), page.parent)
        return f"]({path}{heading and '#' + heading})"

    # Doctests end with an empty line, which is only for doctest.
    text = re.sub(r"\n\n```$", "\n```", text, flags=re.MULTILINE)
    return re.sub(r"\]\(([^)\s]+)\)", link, text)


def page_of_example(script: pathlib.Path) -> str:
    """Return the page of an example: what it says of itself, its figure, its code."""
    program = ast.parse(script.read_text())
    title, _, text = (ast.get_docstring(program) or "").partition("\n\n")
    text = re.sub(r"^    (.+)$", r"```sh\n\1\n```", text, flags=re.MULTILINE)
    figure = script.with_suffix(".png")
    picture = f"![{title}](../../../examples/{figure.name})\n\n" if figure.exists() else ""
    code = (
        f"```{{literalinclude}} ../../../examples/{script.name}\n"
        f":language: python\n:lines: {program.body[1].lineno}-\n```\n"
    )
    return f"# {script.stem}\n\n**{title}**\n\n{text}\n\n{picture}## The program\n\n{code}"


def generate(app) -> None:
    """Write the pages that are made of files outside this folder."""
    shutil.rmtree(GENERATED, ignore_errors=True)
    for folder in ("examples", "notebooks"):
        (GENERATED / folder).mkdir(parents=True)
        index = GENERATED / folder / "index.md"
        index.write_text(f"# {folder.title()}\n\n```{{toctree}}\n:glob:\n:titlesonly:\n\n*\n```\n")
    for source, page in COPIES.items():
        page.write_text(with_links(source.read_text(), source, page))
    # Measurements do not break at their spaces: these tables are wide, and scroll.
    benchmarks = GENERATED / "benchmarks.md"
    rows = re.sub(
        r"(?<=\w) (?=[±(\w][^\n]*\|$)|(?<=±) ", "\u00a0", benchmarks.read_text(), flags=re.M
    )
    benchmarks.write_text(rows)
    for script in EXAMPLES:
        PAGES[script].write_text(page_of_example(script))
    for notebook in NOTEBOOKS:
        shutil.copy(notebook, PAGES[notebook])


def read(app, name: str, text: list[str]) -> None:
    """Correct the links of a page that is not generated."""
    page = ROOT / "docs" / f"{name}.md"
    if page.exists() and not name.startswith("generated/"):
        text[0] = with_links(text[0], page, page)


def rows_of(lines: list[str]) -> list[str]:
    """Return a Markdown table as a table of reStructuredText."""
    result = ["", ".. list-table::", "   :header-rows: 1", ""]
    for line in [lines[0], *lines[2:]]:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        result += ("   * - " + "\n     - ".join(cells)).split("\n")
    return [*result, ""]


# What reStructuredText reads as a substitution, emphasis or a reference: |x|, K_**, K_.
SPECIAL = r"\||\*(?! )|(?<=\w)_(?![\w:])"


def markup(app, what, name, obj, options, lines: list[str]) -> None:
    """Make reStructuredText of a docstring: |x| is no substitution, formulas and tables stay."""
    if what in ("attribute", "property", "data"):
        # Napoleon takes what is before a colon in the first line for a type.
        lines.insert(0, "\\ ")
    result, last, literal, table = [], "", False, []
    for i, line in enumerate([*lines, ""]):
        if line.startswith("|"):
            table.append(line)
            continue
        if table:
            result, table = [*result, *rows_of(table)], []
        if line.strip():
            if i and not lines[i - 1].strip():
                formula = line.startswith("    ") and (literal or not last.startswith(" "))
                if formula and not literal:
                    result += ["::", ""]
                literal = formula
            literal = literal or line.lstrip().startswith(">>>")
            if last.strip() == "Returns:":
                # As above.
                result.append(line[: -len(line.lstrip())] + "\\ ")
            last = line
        result.append(line if literal else re.sub(SPECIAL, r"\\\g<0>", line))
    lines[:] = result


def signature(app, what, name, obj, options, parameters, returns):
    """Show the parameters of modules of Flax; hide those of results that functions make."""
    if what == "class" and parameters == "(*args, **kwargs)":
        found = inspect.signature(obj.__init__, bound_method=True)
        return inspect.stringify_signature(found, show_annotation=False), None
    return ("", None) if parameters and re.search(r"\b_\w", parameters) else None


# Methods that scikit-learn adds, that only JAX calls, or that only solvers and stores call.
HIDDEN = r"set_\w+_request|tree_(un)?flatten|place|jit|pairs|chunks|chunk_file|missing|slices"


def skip(app, what, name, obj, skipped, options):
    """Leave out methods that users do not call."""
    return True if re.fullmatch(HIDDEN, name) else None


def resolve(app, env, node, content):
    """Find `schedules.PowerLaw` from everywhere: a name may leave out that of the package."""
    name = f"nt_residual.{node['reftarget']}"
    found = env.domains.python_domain.objects.get(name) if node["reftype"] == "obj" else None
    if found is None:
        return None
    return make_refnode(app.builder, node["refdoc"], found.docname, found.node_id, content, name)


def link_code(app, doctree, page: str) -> None:
    """Make code in pages a link to the reference, as in `gram.compute(kernel, x)`."""
    objects = app.env.domains.python_domain.objects
    for node in list(doctree.findall(nodes.literal)):
        name = node.astext().partition("(")[0]
        found = {
            (entry.docname, entry.node_id)
            for full, entry in objects.items()
            if full.endswith(f".{name}")
        }
        clear = "." in name or name[:1].isupper() or "_" in name
        if clear and len(found) == 1 and not isinstance(node.parent, nodes.reference):
            link = make_refnode(app.builder, page, *found.pop(), node.copy())
            link[0] += node.children
            node.replace_self(link)


def setup(app) -> None:
    """Connect the above to the build."""
    for field in PyObject.doc_field_types:
        if field.name == "variable":
            field.label = "Attributes"
    app.connect("builder-inited", generate, priority=100)
    app.connect("source-read", read)
    app.connect("autodoc-process-docstring", markup, priority=100)
    app.connect("autodoc-process-signature", signature)
    app.connect("autodoc-skip-member", skip)
    app.connect("missing-reference", resolve)
    app.connect("doctree-resolved", link_code)
