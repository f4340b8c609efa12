import pathlib
import re
import tomllib

ROOT = pathlib.Path(__file__).parent.parent


def test_the_pip_command_without_tensorflow_names_all_requirements():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    needed = {*project["dependencies"], *extras["plots"], *extras["data"], *extras["estimators"]}
    # jaxlib comes with jax, and frozendict is what neural-tangents needs besides.
    needed -= {need for need in needed if need.startswith(("jaxlib", "neural-tangents"))}
    readme = (ROOT / "README.md").read_text()
    (command,) = re.findall(r"```sh\n(pip install 'jax.*?)pip install --no-deps", readme, re.DOTALL)
    assert set(re.findall(r"'([^']+)'", command)) == {*needed, "frozendict>=2.4"}
