import importlib
import inspect
import pathlib
import re
import tomllib

import pytest

import nt_residual
from nt_residual.experiments import reproduce

ROOT = pathlib.Path(__file__).parent.parent
DOCS = ROOT / "docs"
# Those that the build of the documentation makes are left out.
PAGES = [
    *ROOT.glob("*.md"),
    *DOCS.glob("*.md"),
    *DOCS.glob("guides/*.md"),
    *DOCS.glob("api/*.md"),
    ROOT / "benchmarks" / "README.md",
]


def test_the_pip_command_without_tensorflow_names_all_requirements():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    needed = {*project["dependencies"], *extras["plots"], *extras["data"], *extras["estimators"]}
    # jaxlib comes with jax, and frozendict is what neural-tangents needs besides.
    needed -= {need for need in needed if need.startswith(("jaxlib", "neural-tangents"))}
    page = (ROOT / "docs" / "install.md").read_text()
    (command,) = re.findall(r"```sh\n(pip install 'jax.*?)pip install --no-deps", page, re.DOTALL)
    assert set(re.findall(r"'([^']+)'", command)) == {*needed, "frozendict>=2.4"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings_that_exist(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith("http"):
            continue
        path, _, heading = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), target
        if heading:
            headings = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
            anchors = {re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings}
            assert heading in anchors, target


def _public(module):
    """The public names of a module, without those of its files and of what it imports."""
    lazy = re.findall(
        r"^    from \S+ import \w+ as (\w+)$", inspect.getsource(module), re.MULTILINE
    )
    names = getattr(module, "__all__", None) or [*dir(module), *lazy]
    return {n for n in names if n[0] != "_" and not inspect.ismodule(getattr(module, n))}


@pytest.mark.parametrize(
    "name", sorted({*nt_residual.__all__} - {"__version__", "neural_tangents"})
)
def test_the_reference_lists_every_public_name(name):
    page = (DOCS / "api" / f"{name}.md").read_text()
    listed = set(re.findall(r"^   (\w[\w.]*)$", page, re.MULTILINE))
    module = importlib.import_module(f"nt_residual.{name}")
    assert _public(module) <= listed
    for path in listed:
        found = module
        for part in path.split("."):
            # Modules of `experiments` are imported one by one.
            if inspect.ismodule(found) and not hasattr(found, part):
                importlib.import_module(f"{found.__name__}.{part}")
            found = getattr(found, part)
    assert f"\n{name}\n" in (DOCS / "api" / "index.md").read_text()


def test_the_gallery_has_every_example_with_its_figure():
    page = (DOCS / "gallery.md").read_text()
    scripts = {path.stem for path in (ROOT / "examples").glob("*.py")}
    assert set(re.findall(r"\]\(\.\./examples/(\w+)\.py\)", page)) == scripts
    figures = {path.stem for path in (ROOT / "examples").glob("*.png")}
    assert set(re.findall(r"\]\(\.\./examples/(\w+)\.png\)", page)) == figures
    drawn = {
        name
        for name in scripts
        if f'"{name}.png"' in (ROOT / "examples" / f"{name}.py").read_text()
    }
    # The demonstration draws that of digits.
    assert drawn == figures - {"digits"}
    notebooks = {path.name for path in (ROOT / "examples" / "notebooks").glob("*.ipynb")}
    assert set(re.findall(r"/notebooks/(\w+\.ipynb)\)", page)) == notebooks


def test_the_page_of_the_paper_lists_every_claim():
    claims = re.findall(r"^\| `(\w+)`:", (DOCS / "paper.md").read_text(), re.MULTILINE)
    assert claims == list(reproduce.CLAIMS)


def test_every_guide_is_in_the_table_of_contents():
    index = (DOCS / "index.md").read_text()
    pages = {path.relative_to(DOCS).with_suffix("") for path in DOCS.glob("*.md")}
    assert {str(page) for page in pages} - {"index"} <= set(index.split("\n"))
    assert "\nguides/*\n" in index
