"""What neural-tangents computes, as named cases without random numbers, in float64.

`tests/reference/make_neural_tangents.py` computes them with the JAX that neural-tangents
0.6.5 was made for, and stores the results; `tests/compat/test_nt_reference.py` compares.
So this module runs on both, and knows neither nt_residual nor pytest.
"""

import pathlib

import jax
import jax.numpy as jnp
import neural_tangents as nt
import numpy as np
from neural_tangents import stax

STORED = pathlib.Path(__file__).parent / "reference" / "neural_tangents_0.6.5_jax_0.4.20.npz"


def array(*shape, seed=0.0):
    """Numbers of the size of standard normal ones that every machine agrees on."""
    index = np.arange(1, np.prod(shape, dtype=int) + 1)
    return 1.6 * np.sin(index * (12.9898 + seed) + seed).reshape(shape)


def parameters(init_fn, input_shape, seed=0.5):
    """Parameters of the shapes that `init_fn` draws."""
    shapes = jax.eval_shape(lambda key: init_fn(key, input_shape)[1], jax.random.PRNGKey(0))
    leaves, structure = jax.tree_util.tree_flatten(shapes)
    filled = [array(*leaf.shape, seed=seed + i) for i, leaf in enumerate(leaves)]
    return jax.tree_util.tree_unflatten(structure, filled)


def mse(fx, y):
    """The loss that `gradient_descent_mse` descends."""
    return 0.5 * jnp.mean((fx - y) ** 2)


VECTORS = array(4, 6), array(3, 6, seed=0.1)
IMAGES = array(3, 6, 5, 2), array(2, 6, 5, 2, seed=0.1)
SEQUENCES = array(3, 5, 4), array(2, 5, 4, seed=0.1)


def _dense(*layers, **kwargs):
    return stax.serial(
        stax.Dense(7, W_std=1.3, b_std=0.2, **kwargs), *layers, stax.Dense(3, W_std=1.1, b_std=0.1)
    )


def _conv(*layers):
    return stax.serial(
        stax.Conv(4, (3, 3), padding="SAME", W_std=1.2, b_std=0.1), *layers, stax.Dense(3)
    )


def _flat(*layers):
    return _conv(*layers, stax.Flatten())


def _residual(shortcut, branch):
    return stax.serial(stax.FanOut(2), stax.parallel(shortcut, branch), stax.FanInSum())


def _elementwise_relu():
    """ReLU by its covariance function, as in the docstring of `Elementwise`."""

    def nngp_fn(cov12, var1, var2):
        prod = var1 * var2
        sqrt = jnp.sqrt(jnp.maximum(prod - cov12**2, 1e-30))
        angle = jnp.arctan2(sqrt, cov12)
        return (sqrt + (jnp.pi - angle) * cov12) / (2 * jnp.pi)

    return stax.Elementwise(lambda x: jnp.maximum(x, 0.0), nngp_fn)


# Elementwise layers, between two dense ones.
ELEMENTWISE = {
    "ABRelu": lambda: stax.ABRelu(-0.5, 0.7),
    "Abs": lambda: stax.Abs(),
    "Cos": lambda: stax.Cos(a=1.2, b=0.8, c=0.3),
    "Elementwise": _elementwise_relu,
    "ElementwiseNumerical": lambda: stax.ElementwiseNumerical(jnp.tanh, deg=15),
    "Erf": lambda: stax.Erf(a=1.2, b=0.9, c=0.1),
    "Exp": lambda: stax.Exp(a=0.5, b=0.4),
    "ExpNormalized": lambda: stax.ExpNormalized(gamma=0.8, shift=-0.9),
    "Gabor": lambda: stax.Gabor(),
    "Gaussian": lambda: stax.Gaussian(a=1.1, b=-0.6),
    "Gelu": lambda: stax.Gelu(),
    "Gelu_approximate": lambda: stax.Gelu(approximate=True),
    "Hermite": lambda: stax.Hermite(3),
    "Identity": lambda: stax.Identity(),
    "LayerNorm": lambda: stax.serial(stax.LayerNorm(), stax.Relu()),
    "LeakyRelu": lambda: stax.LeakyRelu(0.2),
    "Monomial": lambda: stax.Monomial(2),
    "Polynomial": lambda: stax.Polynomial([0.3, -0.5, 0.2]),
    "Rbf": lambda: stax.Rbf(gamma=0.7),
    "RectifiedMonomial": lambda: stax.RectifiedMonomial(2),
    "Relu": lambda: stax.Relu(),
    "Relu_stabilized": lambda: stax.Relu(do_stabilize=True),
    "Sigmoid_like": lambda: stax.Sigmoid_like(),
    "Sign": lambda: stax.Sign(),
    "Sin": lambda: stax.Sin(a=1.1, b=0.9, c=0.2),
}
# They have a kernel, and no function of finite width.
INFINITE_ONLY = {"ExpNormalized", "Hermite"}

# Every other layer, in a network of vectors, images or sequences.
NETWORKS = {
    "Dense_standard": (VECTORS, lambda: _dense(stax.Relu(), parameterization="standard")),
    "Dropout_test": (VECTORS, lambda: _dense(stax.Relu(), stax.Dropout(0.7, mode="test"))),
    "DotGeneral": (
        VECTORS,
        lambda: stax.serial(stax.DotGeneral(rhs=0.8), stax.Dense(3), stax.Erf(), stax.Dense(2)),
    ),
    "FanInConcat": (
        VECTORS,
        lambda: stax.serial(
            stax.FanOut(2),
            stax.parallel(_dense(stax.Relu()), _dense(stax.Erf())),
            stax.FanInConcat(-1),
            stax.Dense(2),
        ),
    ),
    "FanInProd": (
        VECTORS,
        lambda: stax.serial(
            stax.FanOut(2),
            stax.parallel(_dense(stax.Relu()), _dense(stax.Erf())),
            stax.FanInProd(),
        ),
    ),
    "FanInSum": (
        VECTORS,
        lambda: stax.serial(
            stax.Dense(7),
            _residual(stax.Identity(), stax.serial(stax.Relu(), stax.Dense(7, W_std=1.4))),
            stax.Dense(2),
        ),
    ),
    "repeat": (VECTORS, lambda: stax.repeat(stax.serial(stax.Dense(6), stax.Erf()), 3)),
    "Conv_valid_stride": (
        IMAGES,
        lambda: _flat(stax.Relu(), stax.Conv(3, (3, 2), strides=(2, 1), padding="VALID")),
    ),
    "Conv_circular": (IMAGES, lambda: _flat(stax.Erf(), stax.Conv(3, (3, 3), padding="CIRCULAR"))),
    "Conv_channels_first": (
        tuple(np.moveaxis(x, -1, 1) for x in IMAGES),
        lambda: stax.serial(
            stax.Conv(3, (3, 3), dimension_numbers=("NCHW", "OIHW", "NCHW")),
            stax.Relu(),
            stax.Flatten(),
            stax.Dense(2),
        ),
    ),
    "ConvLocal": (IMAGES, lambda: _flat(stax.Relu(), stax.ConvLocal(3, (2, 2)))),
    "ConvTranspose": (
        IMAGES,
        lambda: _flat(stax.Relu(), stax.ConvTranspose(3, (3, 3), strides=(2, 2), padding="SAME")),
    ),
    "AvgPool": (
        IMAGES,
        lambda: _flat(
            stax.Relu(), stax.AvgPool((2, 2), (2, 2), padding="SAME", normalize_edges=True)
        ),
    ),
    "SumPool": (IMAGES, lambda: _flat(stax.Relu(), stax.SumPool((2, 3), padding="VALID"))),
    "GlobalAvgPool": (IMAGES, lambda: _conv(stax.Relu(), stax.GlobalAvgPool())),
    "GlobalSumPool": (IMAGES, lambda: _conv(stax.Erf(), stax.GlobalSumPool())),
    "ImageResize": (IMAGES, lambda: _flat(stax.Relu(), stax.ImageResize((-1, 4, 4, -1), "linear"))),
    "Index": (IMAGES, lambda: _flat(stax.Relu(), stax.Index(stax.Slice[:, 1:4, ::2]))),
    "LayerNorm_spatial": (IMAGES, lambda: _flat(stax.LayerNorm(axis=(1, 2, 3)), stax.Relu())),
    "FanInSum_conv": (
        IMAGES,
        lambda: _conv(
            _residual(
                stax.Conv(4, (1, 1), strides=(2, 2)),
                stax.serial(stax.Relu(), stax.Conv(4, (3, 3), strides=(2, 2), padding="SAME")),
            ),
            stax.Relu(),
            stax.GlobalAvgPool(),
        ),
    ),
    "GlobalSelfAttention": (
        SEQUENCES,
        lambda: stax.serial(
            stax.Dense(4, b_std=0.1),
            stax.Relu(),
            stax.GlobalSelfAttention(
                n_chan_out=4,
                n_chan_key=4,
                n_chan_val=4,
                n_heads=2,
                linear_scaling=True,
                attention_mechanism="IDENTITY",
                W_query_std=1.2,
                b_std=0.1,
            ),
            stax.Relu(),
            stax.GlobalAvgPool(),
            stax.Dense(2),
        ),
    ),
    "GlobalSelfAttention_positions": (
        SEQUENCES,
        lambda: stax.serial(
            stax.GlobalSelfAttention(
                n_chan_out=4,
                n_chan_key=8,
                n_chan_val=4,
                n_heads=2,
                linear_scaling=False,
                attention_mechanism="SOFTMAX",
                pos_emb_type="SUM",
                pos_emb_decay_fn=None,
            ),
            stax.Flatten(),
            stax.Dense(2),
        ),
    ),
}

_MASKED = {
    "Conv_valid_stride",
    "Conv_circular",
    "GlobalAvgPool",
    "AvgPool",
    "GlobalSelfAttention",
    "FanInSum_conv",
}


def _kernels(kernel_fn, x1, x2, **kwargs):
    """The kernels between two batches, and within one."""
    between = kernel_fn(x1, x2, ("nngp", "ntk"), **kwargs)
    within = kernel_fn(x1, None, ("nngp", "ntk"), **kwargs)
    return {
        "nngp": between.nngp,
        "ntk": between.ntk,
        "nngp_within": within.nngp,
        "ntk_within": within.ntk,
    }


def _with_mask(x):
    """Some entries replaced by the number that stands for a missing one."""
    mask = np.zeros(x.shape, bool)
    mask[0, -2:] = True
    mask[-1, :1] = True
    return jnp.where(jnp.asarray(mask), 10.0, x)


def infinite_width():
    for name, layer in ELEMENTWISE.items():
        kernels = _kernels(_dense(layer())[2], *VECTORS)
        if name == "RectifiedMonomial":  # It divides by the sine of the angle: NaN within.
            kernels = {kind: kernels[kind] for kind in ("nngp", "ntk")}
        yield f"kernel/{name}", kernels
    for name, (inputs, network) in NETWORKS.items():
        if name == "GlobalSelfAttention_positions":
            continue
        yield f"kernel/{name}", _kernels(network()[2], *inputs)
        if name in _MASKED:
            masked = tuple(map(_with_mask, inputs))
            yield f"kernel/{name}/masked", _kernels(network()[2], *masked, mask_constant=10.0)
    dropout = _dense(stax.Relu(), stax.Dropout(0.7))[2]
    yield "kernel/Dropout", _kernels(dropout, *VECTORS)
    x1, x2 = IMAGES
    whole = _conv(stax.Relu())[2](x1, x2, diagonal_batch=False, diagonal_spatial=False)
    yield "kernel/whole", {"nngp": whole.nngp, "ntk": whole.ntk, "cov1": whole.cov1}
    for implementation in ("DENSE", "SPARSE"):
        yield f"kernel/Aggregate/{implementation}", _aggregate(implementation)


def _aggregate(implementation):
    nodes, features = 5, array(2, 5, 3)
    if implementation == "DENSE":
        pattern = jnp.abs(array(2, nodes, nodes)) * (array(2, nodes, nodes, seed=1.0) > 0)
        options = {}
    else:
        pattern = jnp.asarray(np.stack([[[0, 1], [1, 2], [2, 2], [-1, -1]]] * 2))
        options = {"to_dense": _edges_to_matrix(nodes), "implementation": "SPARSE"}
    _, _, kernel_fn = stax.serial(
        stax.Dense(4),
        stax.Relu(),
        stax.Aggregate(aggregate_axis=1, batch_axis=0, **options),
        stax.GlobalAvgPool(),
        stax.Dense(2),
    )
    within = kernel_fn(features, None, ("nngp", "ntk"), pattern=(pattern, pattern))
    return {"nngp": within.nngp, "ntk": within.ntk}


def _edges_to_matrix(nodes):
    def to_dense(edges):
        def one(edges):
            counts = jnp.zeros((nodes + 1, nodes + 1)).at[edges[:, 0], edges[:, 1]].add(1.0)
            return counts[:nodes, :nodes]

        return jax.vmap(one)(edges)

    return to_dense


def finite_width():
    key = jax.random.PRNGKey(0)  # Demanded by dropout; none of these draws from it.
    for name, layer in ELEMENTWISE.items():
        if name not in INFINITE_ONLY:
            yield f"output/{name}", {"fx": _output(_dense(layer()), VECTORS[0], rng=key)}
    for name, (inputs, network) in NETWORKS.items():
        yield f"output/{name}", {"fx": _output(network(), inputs[0], rng=key)}
        if name in _MASKED:
            masked = _with_mask(inputs[0])
            fx = _output(network(), masked, rng=key, mask_constant=10.0)
            yield f"output/{name}/masked", {"fx": fx.masked_value, "mask": fx.mask}


def _output(network, x, **kwargs):
    init_fn, apply_fn, _ = network
    return apply_fn(parameters(init_fn, x.shape), x, **kwargs)


def empirical():
    inputs = {name: NETWORKS[name] for name in ("FanInSum", "Conv_valid_stride", "GlobalAvgPool")}
    inputs["Relu"] = (VECTORS, lambda: _dense(stax.Relu()))
    for name, (batches, network) in inputs.items():
        init_fn, apply_fn, _ = network()
        (x1, x2), params = jax.tree_util.tree_map(
            jnp.asarray, (batches, parameters(init_fn, batches[0].shape))
        )
        for implementation in (1, 2, 3):
            for axes in ({"trace_axes": ()}, {"trace_axes": (), "diagonal_axes": (-1,)}, {}):
                ntk_fn = nt.empirical_ntk_fn(
                    apply_fn, **axes, vmap_axes=0, implementation=implementation
                )
                if name != "Relu":  # One network as it comes, the others in less time.
                    ntk_fn = jax.jit(ntk_fn)
                key = "_".join(["axes", *axes])
                yield (
                    f"empirical/{name}/{implementation}/{key}",
                    {"ntk": ntk_fn(x1, x2, params), "within": ntk_fn(x1, None, params)},
                )
        yield (
            f"empirical/{name}/nngp",
            {
                "nngp": nt.empirical_nngp_fn(apply_fn)(x1, x2, params),
                "full": nt.empirical_nngp_fn(apply_fn, trace_axes=())(x1, x2, params),
            },
        )
        vp_fn = nt.empirical_ntk_vp_fn(apply_fn, x1, x2, params)
        yield f"empirical/{name}/vp", {"vp": vp_fn(apply_fn(params, x2))}
        moved = jax.tree_util.tree_map(lambda p: p + 0.1 * jnp.cos(p), params)
        yield (
            f"empirical/{name}/expansions",
            {
                "linear": nt.linearize(apply_fn, params)(moved, x1),
                "cubic": nt.taylor_expand(apply_fn, params, 3)(moved, x1),
            },
        )


def predict():
    x_train, x_test = map(jnp.asarray, VECTORS)
    y_train = jnp.asarray(array(4, 3, seed=0.4))
    _, _, kernel_fn = _dense(stax.Erf())
    k_train, k_test = kernel_fn(x_train, None), kernel_fn(x_test, x_train)
    times = jnp.asarray([0.1, 1.0, 30.0])

    mse_fn = nt.predict.gradient_descent_mse(k_train.ntk, y_train, diag_reg=1e-3)
    start = array(4, 3, seed=0.7), array(3, 3, seed=0.8)
    for name, t in {"scalar": 2.0, "several": times, "infinite": None}.items():
        fx_train, fx_test = mse_fn(t, *start, k_test.ntk)
        yield f"predict/mse/{name}", {"train": fx_train, "test": fx_test}

    mean_ntk = nt.predict.gradient_descent(mse, k_train.ntk, y_train)
    fx_train, fx_test = mean_ntk(times, *start, k_test.ntk)
    yield "predict/ode/mse", {"train": fx_train, "test": fx_test}

    momentum_fn = nt.predict.gradient_descent(
        lambda fx, y: -jnp.mean(jax.nn.log_softmax(fx) * jax.nn.softmax(y)),
        k_train.ntk,
        y_train,
        learning_rate=0.5,
        momentum=0.9,
    )
    state = momentum_fn(3.0, nt.predict.ODEState(*start, *start), None, k_test.ntk)
    yield (
        "predict/ode/momentum",
        {
            "train": state.fx_train,
            "test": state.fx_test,
            "qx_train": state.qx_train,
            "qx_test": state.qx_test,
        },
    )

    gp_fn = nt.predict.gp_inference(k_train, y_train, diag_reg=1e-3)
    k_test_test = kernel_fn(x_test, None).nngp
    for get in ("nngp", "ntk"):
        posterior = gp_fn(get, k_test, k_test_test)
        yield f"predict/gp/{get}", {"mean": posterior.mean, "covariance": posterior.covariance}

    ensemble = nt.predict.gradient_descent_mse_ensemble(
        kernel_fn, x_train, y_train, learning_rate=0.3, diag_reg=1e-3
    )
    for name, t in {"several": times, "infinite": None}.items():
        posterior = ensemble(t=t, x_test=x_test, get=("nngp", "ntk"), compute_cov=True)
        yield (
            f"predict/ensemble/{name}",
            {
                "nngp": posterior.nngp.mean,
                "nngp_covariance": posterior.nngp.covariance,
                "ntk": posterior.ntk.mean,
                "ntk_covariance": posterior.ntk.covariance,
            },
        )

    yield (
        "predict/max_learning_rate",
        {
            "plain": nt.predict.max_learning_rate(k_train.ntk, y_train_size=12),
            "momentum": nt.predict.max_learning_rate(k_train.ntk, momentum=0.9),
        },
    )


GROUPS = {
    "infinite_width": infinite_width,
    "finite_width": finite_width,
    "empirical": empirical,
    "predict": predict,
}


def stored():
    """Returns what `make_neural_tangents.py` stored, in the form of `compute`."""
    cases = {}
    for key, value in np.load(STORED).items():
        case, _, name = key.rpartition("/")
        cases.setdefault(case, {})[name] = value
    return cases


def compute(group):
    """Returns {case: {quantity: float64 array}} for one of `GROUPS`; x64 must be enabled."""
    return {
        case: {name: np.asarray(value) for name, value in values.items()}
        for case, values in GROUPS[group]()
    }
