"""Computations of neural-tangents as named cases in float64, and their results of 2023.

`tests/reference/make_neural_tangents.py` computes the cases with the JAX that
neural-tangents 0.6.5 was made for, and stores the results;
`tests/compat/test_nt_reference.py` compares. So this module runs on both, and knows
neither nt_residual nor pytest.
"""

import functools
import itertools
import pathlib

import jax
import jax.numpy as jnp
import neural_tangents as nt
import numpy as np
from neural_tangents import stax
from nt_networks import (
    ELEMENTWISE,
    INFINITE_ONLY,
    MASKED,
    NETWORKS,
    VECTORS,
    array,
    dense,
    parameters,
)

STORED = pathlib.Path(__file__).parent / "reference" / "neural_tangents_0.6.5_jax_0.4.20.npz"

# By name, a function without arguments that returns {quantity: array}.
CASES = {}


def stored():
    """Returns {case: {quantity: array}}, as `make_neural_tangents.py` stored it."""
    cases = {}
    for key, value in np.load(STORED).items():
        case, _, quantity = key.rpartition("/")
        cases.setdefault(case, {})[quantity] = value
    return cases


def compute(case):
    """Returns {quantity: array} for one of `CASES`; x64 must be enabled."""
    return {quantity: np.asarray(value) for quantity, value in CASES[case]().items()}


def mse(fx, y):
    """The loss that `gradient_descent_mse` descends."""
    return 0.5 * jnp.mean((fx - y) ** 2)


def _fields(result, *names):
    return {name: getattr(result, name) for name in names}


# Kernels of infinitely wide networks.


def _with_mask(x):
    """Some entries replaced by the number that stands for a missing one."""
    mask = np.zeros(x.shape, bool)
    mask[0, -2:] = True
    mask[-1, :1] = True
    return np.where(mask, 10.0, x)


def _kernels(network, inputs, masked=False):
    """The kernels between two batches, and within one."""
    kernel_fn, (x1, x2), kwargs = network()[2], inputs, {}
    if masked:
        x1, x2, kwargs = _with_mask(x1), _with_mask(x2), {"mask_constant": 10.0}

    @jax.jit
    def kernels(x1, x2):
        between = kernel_fn(x1, x2, ("nngp", "ntk"), **kwargs)
        within = kernel_fn(x1, None, ("nngp", "ntk"), **kwargs)
        return between.nngp, between.ntk, within.nngp, within.ntk

    return dict(zip(("nngp", "ntk", "nngp_within", "ntk_within"), kernels(x1, x2), strict=True))


def _kernels_between(network, inputs):
    return _fields(network()[2](*inputs, ("nngp", "ntk")), "nngp", "ntk")


def _aggregate():
    features = array(2, 5, 3)
    pattern = jnp.asarray(np.abs(array(2, 5, 5)) * (array(2, 5, 5, seed=1.0) > 0))
    aggregate = stax.Aggregate(aggregate_axis=1, batch_axis=0)
    layers = [stax.Dense(4), stax.Relu(), aggregate, stax.GlobalAvgPool(), stax.Dense(2)]
    kernel_fn = stax.serial(*layers)[2]
    within = kernel_fn(features, None, ("nngp", "ntk"), pattern=(pattern, pattern))
    return {"nngp_within": within.nngp, "ntk_within": within.ntk}


for _name, _layer in ELEMENTWISE.items():
    _network = functools.partial(lambda layer: dense(layer()), _layer)
    # RectifiedMonomial divides by the sine of the angle, and gives NaN within a batch.
    _function = _kernels_between if _name == "RectifiedMonomial" else _kernels
    CASES[f"kernel/{_name}"] = functools.partial(_function, _network, VECTORS)
for _name, (_inputs, _network) in NETWORKS.items():
    if _name != "GlobalSelfAttention_positions":  # It has no closed form.
        CASES[f"kernel/{_name}"] = functools.partial(_kernels, _network, _inputs)
    if _name in MASKED:
        CASES[f"kernel/{_name}/masked"] = functools.partial(_kernels, _network, _inputs, True)
CASES["kernel/Dropout"] = functools.partial(
    _kernels, lambda: dense(stax.Relu(), stax.Dropout(0.7)), VECTORS
)
CASES["kernel/Aggregate"] = _aggregate


# Outputs of finite networks.


def _output(network, x, **kwargs):
    init_fn, apply_fn, _ = network()
    # Dropout demands a key; none of these draws from it.
    return apply_fn(parameters(init_fn, x.shape), x, rng=jax.random.PRNGKey(0), **kwargs)


def _plain_output(network, x):
    return {"fx": _output(network, x)}


def _masked_output(network, x):
    fx = _output(network, _with_mask(x), mask_constant=10.0)
    return {"fx": fx.masked_value, "mask": fx.mask}


for _name, _layer in ELEMENTWISE.items():
    if _name not in INFINITE_ONLY:
        _network = functools.partial(lambda layer: dense(layer()), _layer)
        CASES[f"output/{_name}"] = functools.partial(_plain_output, _network, VECTORS[0])
for _name, (_inputs, _network) in NETWORKS.items():
    CASES[f"output/{_name}"] = functools.partial(_plain_output, _network, _inputs[0])
    if _name in MASKED:
        CASES[f"output/{_name}/masked"] = functools.partial(_masked_output, _network, _inputs[0])


# Kernels and expansions of finite networks.


def _finite(name):
    inputs, network = NETWORKS.get(name, (VECTORS, lambda: dense(stax.Relu())))
    init_fn, apply_fn, _ = network()
    params = parameters(init_fn, inputs[0].shape)
    return apply_fn, *jax.tree_util.tree_map(jnp.asarray, (params, *inputs))


def _ntk(name, implementation, axes):
    f, params, x1, x2 = _finite(name)
    ntk_fn = nt.empirical_ntk_fn(f, **axes, vmap_axes=0, implementation=implementation)
    if name != "Relu":  # One network as it comes, the others in less time.
        ntk_fn = jax.jit(ntk_fn)
    return {"ntk": ntk_fn(x1, x2, params), "within": ntk_fn(x1, None, params)}


def _nngp(name):
    f, params, x1, x2 = _finite(name)
    full = nt.empirical_nngp_fn(f, trace_axes=())(x1, x2, params)
    return {"nngp": nt.empirical_nngp_fn(f)(x1, x2, params), "full": full}


def _vector_product(name):
    f, params, x1, x2 = _finite(name)
    return {"vp": nt.empirical_ntk_vp_fn(f, x1, x2, params)(f(params, x2))}


def _expansions(name):
    f, params, x, _ = _finite(name)
    moved = jax.tree_util.tree_map(lambda p: p + 0.1 * jnp.cos(p), params)
    cubic = nt.taylor_expand(f, params, 3)(moved, x)
    return {"linear": nt.linearize(f, params)(moved, x), "cubic": cubic}


_AXES = {
    "trace": {},
    "full": {"trace_axes": ()},
    "diagonal": {"trace_axes": (), "diagonal_axes": (-1,)},
}
for _name in ("Relu", "FanInSum", "Conv_valid_stride", "GlobalAvgPool"):
    CASES[f"empirical/{_name}/nngp"] = functools.partial(_nngp, _name)
    CASES[f"empirical/{_name}/vp"] = functools.partial(_vector_product, _name)
    CASES[f"empirical/{_name}/expansions"] = functools.partial(_expansions, _name)
    for _implementation, _key in itertools.product((1, 2, 3), _AXES):
        CASES[f"empirical/{_name}/ntk/{_implementation}/{_key}"] = functools.partial(
            _ntk, _name, _implementation, _AXES[_key]
        )


# Predictions.

_KERNEL_FN = dense(stax.Erf())[2]
_Y_TRAIN = array(4, 3, seed=0.4)
_START = array(4, 3, seed=0.7), array(3, 3, seed=0.8)
_TIMES = {"scalar": 2.0, "several": np.array([0.1, 1.0, 30.0]), "infinite": None}


def _problem():
    x_train, x_test = map(jnp.asarray, VECTORS)
    return _KERNEL_FN(x_train, None), _KERNEL_FN(x_test, x_train), jnp.asarray(_Y_TRAIN)


def _gradient_descent_mse(t):
    k_train, k_test, y = _problem()
    predict_fn = nt.predict.gradient_descent_mse(k_train.ntk, y, diag_reg=1e-3)
    train, test = predict_fn(t, *_START, k_test.ntk)
    return {"train": train, "test": test}


def _gradient_descent():
    k_train, k_test, y = _problem()
    predict_fn = nt.predict.gradient_descent(mse, k_train.ntk, y)
    train, test = predict_fn(_TIMES["several"], *_START, k_test.ntk)
    return {"train": train, "test": test}


def _momentum():
    k_train, k_test, y = _problem()

    def cross_entropy(fx, y):
        return -jnp.mean(jax.nn.log_softmax(fx) * jax.nn.softmax(y))

    predict_fn = nt.predict.gradient_descent(
        cross_entropy, k_train.ntk, y, learning_rate=0.5, momentum=0.9
    )
    start = nt.predict.ODEState(*map(jnp.asarray, _START * 2))
    state = predict_fn(3.0, start, None, k_test.ntk)
    return _fields(state, "fx_train", "fx_test", "qx_train", "qx_test")


def _gp_inference(get):
    k_train, k_test, y = _problem()
    k_test_test = _KERNEL_FN(VECTORS[1], None).nngp
    posterior = nt.predict.gp_inference(k_train, y, diag_reg=1e-3)(get, k_test, k_test_test)
    return _fields(posterior, "mean", "covariance")


def _ensemble(t):
    x_train, x_test = map(jnp.asarray, VECTORS)
    predict_fn = nt.predict.gradient_descent_mse_ensemble(
        _KERNEL_FN, x_train, jnp.asarray(_Y_TRAIN), learning_rate=0.3, diag_reg=1e-3
    )
    posterior = predict_fn(t=t, x_test=x_test, get=("nngp", "ntk"), compute_cov=True)
    return {
        f"{kind}_{moment}": getattr(getattr(posterior, kind), moment)
        for kind in ("nngp", "ntk")
        for moment in ("mean", "covariance")
    }


def _max_learning_rate():
    ntk = _problem()[0].ntk
    return {
        "plain": nt.predict.max_learning_rate(ntk, y_train_size=12),
        "momentum": nt.predict.max_learning_rate(ntk, momentum=0.9),
    }


for _name, _t in _TIMES.items():
    CASES[f"predict/mse/{_name}"] = functools.partial(_gradient_descent_mse, _t)
    CASES[f"predict/ensemble/{_name}"] = functools.partial(_ensemble, _t)
CASES["predict/ode/mse"] = _gradient_descent
CASES["predict/ode/momentum"] = _momentum
CASES["predict/gp/nngp"] = functools.partial(_gp_inference, "nngp")
CASES["predict/gp/ntk"] = functools.partial(_gp_inference, "ntk")
CASES["predict/max_learning_rate"] = _max_learning_rate
