import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import finite_difference

from nt_residual import conv, rntk, schedules, theory


def test_power_law_gives_one_alpha_per_block():
    np.testing.assert_allclose(schedules.PowerLaw(0.5, c=3.0)(9), np.ones(9), rtol=1e-15)


def test_constant_is_the_power_law_of_exponent_zero():
    assert schedules.Constant(0.3) == schedules.PowerLaw(gamma=0.0, c=0.3)


def test_explicit_gives_its_alphas_back_and_is_hashable():
    schedule = schedules.Explicit(np.array([0.5, 0.25]))
    np.testing.assert_array_equal(schedule(2), [0.5, 0.25])
    assert hash(schedule) == hash(schedules.Explicit([0.5, 0.25]))


def test_effective_time_is_the_logarithm_of_the_variance_gain():
    alphas = np.array([1.0, 0.5, 0.0])
    assert schedules.effective_time(alphas) == pytest.approx(math.log(2 * 1.25), rel=1e-15)


@pytest.mark.parametrize(("gamma", "limit"), [(0, math.inf), (0.4, math.inf), (0.5, 4.0), (0.6, 0)])
def test_effective_time_approaches_its_limit(gamma, limit):
    schedule = schedules.PowerLaw(gamma, c=2.0)
    assert schedule.limiting_effective_time == limit
    shallow, deep = (schedules.effective_time(schedule(depth)) for depth in (10**3, 10**6))
    if limit == math.inf:
        assert deep > 3 * shallow
    else:
        assert abs(deep - limit) < abs(shallow - limit) / 3


@pytest.mark.parametrize("alphas", [[math.nan], [1.0, math.inf], [1.0, -0.1]])
def test_alphas_that_are_not_finite_and_non_negative_are_refused(alphas):
    message = r"schedule must hold finite α ≥ 0, got .* in block"
    with pytest.raises(ValueError, match=message):
        schedules.effective_time(alphas)


@pytest.mark.parametrize("alphas", [[], [[1.0]]])
def test_alphas_of_the_wrong_shape_are_refused(alphas):
    with pytest.raises(ValueError, match=r"shape \(depth,\)"):
        schedules.effective_time(alphas)


@pytest.mark.parametrize("alphas", [1.0, None, "PowerLaw", ["a"], [True], [[1.0], 1.0]])
def test_what_is_no_array_of_numbers_is_refused(alphas):
    with pytest.raises(TypeError, match=r"schedule must (be a callable|hold real numbers)"):
        schedules.effective_time(alphas)


def test_a_schedule_is_a_callable_of_the_depth_or_an_array():
    law, alphas = schedules.PowerLaw(0.5), schedules.PowerLaw(0.5)(3)
    x = np.eye(2, dtype=np.float32)
    for take in (
        schedules.effective_time,
        lambda *schedule: rntk.block_sums([1.0], *schedule).blocks,
        lambda law, depth=None: rntk.recursive_kernel(x, schedule=law, depth=depth),
    ):
        np.testing.assert_array_equal(take(alphas), take(law, 3))
        with pytest.raises(ValueError, match="depth is not known"):
            take(law)
        with pytest.raises(ValueError, match="one α per block, got 3 alphas for depth=4"):
            take(alphas, 4)
    assert rntk.ResidualKernel(3, alphas) == rntk.ResidualKernel(3, schedules.Explicit(alphas))


def test_infinite_depth_has_no_alphas():
    with pytest.raises(ValueError, match="limiting_effective_time"):
        schedules.PowerLaw(1.0)(math.inf)


def test_an_explicit_schedule_refuses_another_depth():
    with pytest.raises(ValueError, match="holds 2 alphas, got depth=3"):
        schedules.Explicit([1.0, 0.5])(3)


# Values traced by JAX.


@pytest.mark.parametrize("which", ["gamma", "c"])
def test_a_power_law_takes_traced_parameters(which, x64):
    def alpha(value):
        schedule = schedules.PowerLaw(**{"gamma": 0.4, "c": 1.2, which: value})
        return schedule(10)

    np.testing.assert_allclose(jax.jit(alpha)(0.7), alpha(0.7), rtol=1e-12)
    derivative = jax.jacobian(alpha)(0.7)
    expected = finite_difference(alpha, 0.7)
    np.testing.assert_allclose(derivative, expected, rtol=1e-7)
    assert jax.vmap(alpha)(jnp.array([0.3, 0.7])).shape == (2, 10)


def test_scalars_of_jax_become_floats():
    schedule = schedules.PowerLaw(gamma=jnp.asarray(0.5), c=np.float32(2))
    assert schedule == schedules.PowerLaw(0.5, 2.0)
    assert isinstance(schedule.gamma, float)
    with pytest.raises(ValueError, match="gamma must be ≥ 0 and finite"):
        schedules.PowerLaw(gamma=jnp.asarray(-0.5))
    with pytest.raises(ValueError, match="c must be positive and finite, got 0"):
        schedules.PowerLaw(gamma=1, c=0)
    with pytest.raises(TypeError, match="gamma must be a real number, got"):
        schedules.PowerLaw(gamma=jnp.ones(1))


def test_traced_alphas_are_refused_where_their_values_are_needed():
    with pytest.raises(TypeError, match="traced by JAX"):
        jax.jit(schedules.effective_time)(jnp.ones(3))
    with pytest.raises(TypeError, match="traced by JAX"):
        jax.jit(lambda alpha: schedules.Explicit([alpha, 0.5])(2))(0.3)


@pytest.mark.parametrize("make", ["kernel", "regime", "convolutional"])
def test_an_effective_time_may_differ_from_that_of_the_schedule_by_rounding_alone(make):
    schedule = schedules.PowerLaw(0.5, c=0.1)
    assert schedule.limiting_effective_time != 0.01
    take = {
        "kernel": lambda time: rntk.ResidualKernel(math.inf, schedule, effective_time=time),
        "regime": lambda time: theory.regime(schedule, effective_time=time),
        "convolutional": lambda time: conv.ResidualKernel(
            math.inf, schedule, (2, 2), effective_time=time
        ),
    }[make]
    assert take(0.01).effective_time == schedule.limiting_effective_time
    with pytest.raises(ValueError, match=r"that of the schedule, 0\.01.*got"):
        take(0.0100001)


def test_a_limit_that_the_schedule_states_wrongly_is_refused():
    class Own(schedules.PowerLaw):
        limiting_effective_time = -1.0

    with pytest.raises(ValueError, match="limiting_effective_time of the schedule must be ≥ 0"):
        theory.regime(Own(0.5))
