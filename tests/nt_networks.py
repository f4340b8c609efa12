"""Inputs and networks for tests of neural-tangents, without random numbers.

Like `nt_cases`, this module runs on any JAX and knows neither nt_residual nor pytest.
"""

import jax
import jax.numpy as jnp
import numpy as np
from neural_tangents import stax


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


VECTORS = array(4, 6), array(3, 6, seed=0.1)
IMAGES = array(3, 6, 5, 2), array(2, 6, 5, 2, seed=0.1)
SEQUENCES = array(3, 5, 4), array(2, 5, 4, seed=0.1)


def dense(*layers, **kwargs):
    return stax.serial(
        stax.Dense(7, W_std=1.3, b_std=0.2, **kwargs), *layers, stax.Dense(3, W_std=1.1, b_std=0.1)
    )


def conv(*layers):
    return stax.serial(
        stax.Conv(4, (3, 3), padding="SAME", W_std=1.2, b_std=0.1), *layers, stax.Dense(3)
    )


def flat(*layers):
    return conv(*layers, stax.Flatten())


def pair(combine):
    """Two networks of different nonlinearity, and a layer that combines them."""
    return stax.serial(
        stax.FanOut(2), stax.parallel(dense(stax.Relu()), dense(stax.Erf())), combine
    )


def residual(shortcut, branch):
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
    "Dense_standard": (VECTORS, lambda: dense(stax.Relu(), parameterization="standard")),
    "Dropout_test": (VECTORS, lambda: dense(stax.Relu(), stax.Dropout(0.7, mode="test"))),
    "DotGeneral": (
        VECTORS,
        lambda: stax.serial(stax.DotGeneral(rhs=0.8), stax.Dense(3), stax.Erf(), stax.Dense(2)),
    ),
    "FanInConcat": (VECTORS, lambda: stax.serial(pair(stax.FanInConcat(-1)), stax.Dense(2))),
    "FanInProd": (VECTORS, lambda: pair(stax.FanInProd())),
    "FanInSum": (
        VECTORS,
        lambda: stax.serial(
            stax.Dense(7),
            residual(stax.Identity(), stax.serial(stax.Relu(), stax.Dense(7, W_std=1.4))),
            stax.Dense(2),
        ),
    ),
    "repeat": (VECTORS, lambda: stax.repeat(stax.serial(stax.Dense(6), stax.Erf()), 3)),
    "Conv_valid_stride": (
        IMAGES,
        lambda: flat(stax.Relu(), stax.Conv(3, (3, 2), strides=(2, 1), padding="VALID")),
    ),
    "Conv_circular": (IMAGES, lambda: flat(stax.Erf(), stax.Conv(3, (3, 3), padding="CIRCULAR"))),
    "Conv_channels_first": (
        tuple(np.moveaxis(x, -1, 1) for x in IMAGES),
        lambda: stax.serial(
            stax.Conv(3, (3, 3), dimension_numbers=("NCHW", "OIHW", "NCHW")),
            stax.Relu(),
            stax.Flatten(),
            stax.Dense(2),
        ),
    ),
    "ConvLocal": (IMAGES, lambda: flat(stax.Relu(), stax.ConvLocal(3, (2, 2)))),
    "ConvTranspose": (
        IMAGES,
        lambda: flat(stax.Relu(), stax.ConvTranspose(3, (3, 3), strides=(2, 2), padding="SAME")),
    ),
    "AvgPool": (
        IMAGES,
        lambda: flat(
            stax.Relu(), stax.AvgPool((2, 2), (2, 2), padding="SAME", normalize_edges=True)
        ),
    ),
    "SumPool": (IMAGES, lambda: flat(stax.Relu(), stax.SumPool((2, 3), padding="VALID"))),
    "GlobalAvgPool": (IMAGES, lambda: conv(stax.Relu(), stax.GlobalAvgPool())),
    "GlobalSumPool": (IMAGES, lambda: conv(stax.Erf(), stax.GlobalSumPool())),
    "ImageResize": (IMAGES, lambda: flat(stax.Relu(), stax.ImageResize((-1, 4, 4, -1), "linear"))),
    "Index": (IMAGES, lambda: flat(stax.Relu(), stax.Index(stax.Slice[:, 1:4, ::2]))),
    "LayerNorm_spatial": (IMAGES, lambda: flat(stax.LayerNorm(axis=(1, 2, 3)), stax.Relu())),
    "FanInSum_conv": (
        IMAGES,
        lambda: conv(
            residual(
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
                4, 4, 4, n_heads=2, W_query_std=1.2, b_std=0.1, attention_mechanism="IDENTITY"
            ),
            stax.Relu(),
            stax.GlobalAvgPool(),
            stax.Dense(2),
        ),
    ),
    "GlobalSelfAttention_positions": (
        SEQUENCES,
        lambda: stax.serial(
            stax.GlobalSelfAttention(4, 8, 4, n_heads=2, linear_scaling=False, pos_emb_type="SUM"),
            stax.Flatten(),
            stax.Dense(2),
        ),
    ),
}

MASKED = {
    "Conv_valid_stride",
    "Conv_circular",
    "GlobalAvgPool",
    "AvgPool",
    "GlobalSelfAttention",
    "FanInSum_conv",
}
