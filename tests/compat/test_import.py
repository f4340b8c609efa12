import neural_tangents as nt
import pytest
from helpers import run_python

from nt_residual import compat


def test_neural_tangents_imports_without_tensorflow():
    result = run_python(
        "import nt_residual, neural_tangents as nt, sys\n"
        "assert 'tensorflow' not in sys.modules\n"
        "print(nt.__version__)"
    )
    assert result.stdout.strip() == compat.NEURAL_TANGENTS_VERSION, result.stderr


def test_jax_looks_to_others_exactly_as_before():
    # Objects are compared by identity, removed names by the error JAX gives for them.
    result = run_python("""
import importlib, warnings
warnings.simplefilter("ignore")
import jax

NAMES = ["jax", "jax.core", "jax.numpy", "jax.util", "jax.interpreters", "jax.interpreters.ad",
         "jax.extend", "jax.extend.core", "scipy", "scipy.linalg"]
REMOVED = ["Jaxpr", "JaxprEqn", "Literal", "Primitive", "Var", "get_aval", "safe_map", "safe_zip",
           "zeros_like_p"]

def look():
    seen = {}
    for name in NAMES:
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as error:
            seen[name] = repr(error)
            continue
        seen[name] = sorted(dir(module)), {k: id(v) for k, v in vars(module).items()}
        for attribute in REMOVED:
            try:
                seen[name, attribute] = id(getattr(module, attribute))
            except AttributeError as error:
                seen[name, attribute] = repr(error)
    seen["config"] = jax.config.jax_enable_x64, jax.config.jax_default_matmul_precision
    seen["warnings"] = list(warnings.filters)
    return seen

import jax.example_libraries.stax, jax.experimental.ode  # What neural-tangents imports of JAX.
import jax.scipy.special, jax.extend.linear_util, scipy.linalg
before = look()
import nt_residual
import neural_tangents
from nt_residual import stax
assert look() == before

# Nor does it change when it is used.
import jax.numpy as jnp
init_fn, f, kernel_fn = neural_tangents.stax.serial(
    neural_tangents.stax.Dense(4), neural_tangents.stax.Relu(), neural_tangents.stax.Dense(1))
x = jnp.ones((2, 3))
_, params = init_fn(jax.random.PRNGKey(0), x.shape)

def use():
    for implementation in range(4):
        neural_tangents.empirical_ntk_fn(f, implementation=implementation)(x, None, params)
    k = neural_tangents.batch(kernel_fn, batch_size=1)(x, None, "ntk")
    neural_tangents.predict.max_learning_rate(k)
    neural_tangents.predict.gradient_descent_mse(k + jnp.eye(2), jnp.ones((2, 1)))(1.0)

use()  # JAX and SciPy import some of their own modules when these are first used.
before = look()
use()
assert look() == before
print("the same")
""")
    assert result.stdout.strip().endswith("the same"), result.stderr


def test_importing_nt_residual_alone_leaves_jax_for_later():
    result = run_python("import sys, nt_residual; print('jax' in sys.modules)")
    assert result.stdout.strip() == "False", result.stderr


def test_the_kernel_works_where_neural_tangents_cannot_be_imported():
    result = run_python(
        "import sys\n"
        "sys.modules['neural_tangents'] = None\n"
        "import nt_residual, jax.numpy as jnp\n"
        "from nt_residual import regression, rntk, schedules, theory\n"
        "print(rntk.ResidualKernel(3, schedules.PowerLaw(1.0))(jnp.eye(2)).shape)"
    )
    assert result.stdout.strip() == "(2, 2)", result.stderr


def test_a_missing_neural_tangents_is_named_with_the_remedy():
    result = run_python(
        "import importlib.machinery, sys, nt_residual\n"
        "find = importlib.machinery.PathFinder.find_spec\n"
        "def without(name, path=None, target=None):\n"
        "    return None if name == 'neural_tangents' else find(name, path, target)\n"
        "importlib.machinery.PathFinder.find_spec = without\n"
        "from nt_residual import stax"
    )
    assert "ModuleNotFoundError: neural-tangents is not installed" in result.stderr
    assert "pip install --no-deps neural-tangents==0.6.5 frozendict" in result.stderr


def test_another_version_of_neural_tangents_is_refused():
    result = run_python(
        "import importlib.metadata, nt_residual\n"
        "importlib.metadata.version = lambda name: '0.6.2'\n"
        "import neural_tangents"
    )
    assert "ImportError: neural-tangents 0.6.2 is installed" in result.stderr
    assert "pip install --no-deps neural-tangents==0.6.5" in result.stderr


def test_on_an_unknown_jax_the_error_names_what_is_missing_and_what_works():
    result = run_python(
        "import nt_residual\n"
        "from nt_residual.compat import jax_names\n"
        "jax_names._MISSING['jax.core'].pop('Jaxpr')\n"
        "import neural_tangents"
    )
    last = result.stderr.strip().splitlines()[-1]
    assert "cannot import name 'Jaxpr'" in last
    assert "JAX 0.7.2 to 0.12.0.1 are known to work" in last


def test_functions_that_need_tensorflow_say_so():
    for function in (
        nt.experimental.empirical_ntk_fn_tf,
        nt.experimental.get_apply_fn_and_params,
    ):
        with pytest.raises(NotImplementedError, match="needs TensorFlow"):
            function(None)


FAILED = """
try:
    import neural_tangents
    raise AssertionError
except ImportError:
    assert "nt_residual" not in sys.modules
"""
# Alone neural-tangents fails for want of TensorFlow. Where that is, many of its modules are
# imported before it asks for a name that JAX has moved.
TENSORFLOW = "sys.modules['neural_tangents.experimental'] = types.ModuleType('experimental')\n"
BEFORE = {
    "alone": "",
    "after nt_residual": "import nt_residual, neural_tangents",
    "after it failed": FAILED,
    "after it failed with TensorFlow": TENSORFLOW + FAILED,
}


@pytest.mark.parametrize("before", BEFORE.values(), ids=BEFORE)
def test_neural_tangents_is_an_attribute_in_any_order_of_imports(before):
    result = run_python(f"""
import sys, types
{before}
from nt_residual import neural_tangents as nt
import jax.numpy as jnp, neural_tangents
assert nt is neural_tangents
k = nt.stax.serial(nt.stax.Dense(4), nt.stax.Relu(), nt.stax.Dense(1))[2](jnp.eye(2), None, "ntk")
nt.predict.max_learning_rate(k)  # One of those that are replaced.
loaders = {{type(m.__loader__) for n, m in sys.modules.items() if n.startswith(nt.__name__ + "._")}}
assert loaders == {{type(nt.__loader__)}}, loaders
print(nt.__version__)
""")
    assert result.stdout.strip() == compat.NEURAL_TANGENTS_VERSION, result.stderr
