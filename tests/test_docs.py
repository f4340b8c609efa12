import pathlib
import re
import tomllib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "benchmarks" / "README.md"]


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
