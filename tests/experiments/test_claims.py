"""Each claim at a tiny size, and that its findings can fail."""

import dataclasses
import math

import numpy as np
import pytest

from nt_residual import rntk, schedules, theory
from nt_residual.experiments import (
    claim,
    classification,
    constant_alpha,
    convergence,
    depth_sweep,
    depth_table,
    early_stopping,
    finite_networks,
    minimax,
    parity,
    slow_decay,
)

TINY = {"n_train": 32, "n_test": 50, "seeds": 2}
SIZES = (32, 128)


@pytest.fixture(scope="module")
def results():
    """What each claim gives, all with kernels of the same few shapes."""
    return {
        constant_alpha: constant_alpha.run([10, 100, 3000, 10_000], **TINY),
        slow_decay: slow_decay.run([0.1, 0.4], [10, 100, 1000], **TINY),
        convergence: convergence.run([0.5, 1.0], [10, 30, 100]),
        minimax: minimax.run(SIZES, dims=[3], gammas=[0.5], n_test=50, n_calibration=32, seeds=2),
        parity: parity.run(SIZES, depths=[math.inf], n_test=50, seeds=2),
        classification: classified(),
        finite_networks: trained(),
    }


def classified():
    """Kernels of images with accuracies made up: `early_stopping` has tests of its own."""

    def evaluate(kernel, sets):
        assert {len(labels) for _, labels in sets.values()} == {90, 30, 100} or kernel.depth == 2
        accuracy = 0.8 if kernel.schedule.gamma == 0 and kernel.depth == 1000 else 0.9
        numbers = (kernel.effective_time, "regime", 1.0, accuracy, accuracy, accuracy - 0.05)
        shapes.append(sets["train"][0].shape)
        return early_stopping.Row(kernel.depth, kernel.schedule.gamma, *numbers), None

    shapes = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(early_stopping, "evaluate", evaluate)
        result = classification.run(
            gammas=[0.0, 0.5], depths=[10, 1000], n_train=120,
            conv_gammas=[1.0], conv_depths=[2], n_conv=40, n_test=100,
        )  # fmt: skip
    assert shapes == [(90, 64)] * 4 + [(30, 8, 8, 1)]
    return result


def trained():
    """Networks that were never trained: `depth_sweep` has tests of its own."""

    def sweep(dataset, *, gammas, depths, seeds, **options):
        assert len(dataset.x_train) == 100
        runs = [
            depth_table.DepthRun(gamma, depth, seed, test_error=0.1, gradient_norms=(1.0,) * depth)
            for gamma in gammas
            for depth in depths
            for seed in range(seeds)
        ]
        return depth_table.DepthSweep(runs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(depth_sweep, "run", sweep)
        return finite_networks.run(gammas=[0.0, 1.0], depths=[2], n_train=100)


def agreed(module, result):
    return [finding.agrees for finding in module.findings(result)]


def changed(result, **values):
    """The same with some columns set to a number in all rows."""
    return dataclasses.replace(
        result, rows=[dataclasses.replace(row, **values) for row in result.rows]
    )


def test_a_constant_kernel_is_found_and_one_that_is_not_is_told_apart(results):
    result = results[constant_alpha]
    assert agreed(constant_alpha, result)[:2] == [True, True]
    assert [row.depth for row in result.of(0.0)] == [10, 100, 3000, 10_000]
    assert agreed(constant_alpha, changed(result, distance=0.2, error=0.5)) == [False] * 4


def test_the_relative_error_of_a_constant_kernel_is_that_of_the_mean(results):
    errors = [row.error for row in results[constant_alpha].of(0.0)]
    assert errors[0] < 0.3
    assert 0.9 < errors[-1] < 1.1


def test_slowly_falling_alphas_degenerate_at_their_rate(results):
    result = results[slow_decay]
    verdicts = agreed(slow_decay, result)
    # The rate of γ = 0.4 shows at depths beyond those alone.
    assert verdicts.count(None) == 1
    assert False not in verdicts
    assert not any(agreed(slow_decay, changed(result, distance=0.2, error=0.2)))


def test_distances_are_those_of_the_kernel_to_a_quarter(results):
    row = results[slow_decay].of(0.4)[0]
    kernel = rntk.ResidualKernel(10, schedules.PowerLaw(0.4))
    far = np.abs(kernel.at_angle(theory.rates.default_angles()) - 0.25).max()
    assert row.distance == pytest.approx(far)


def test_kernels_converge_at_their_rates_and_a_wrong_rate_is_told_apart(results):
    result = results[convergence]
    assert all(agreed(convergence, result))
    doctored = dataclasses.replace(
        result,
        rows=[dataclasses.replace(row, distance=row.depth**-0.5) for row in result.rows],
        limit_range=dict.fromkeys(result.limit_range, (0.25, 0.25)),
        from_one_layer=0.1,
    )
    assert not any(agreed(convergence, doctored))


def test_risk_by_number_of_points_is_judged_by_its_slope(results):
    result = results[minimax]
    made = [
        dataclasses.replace(row, stopped=row.n_train**-0.6, interpolated=1.0) for row in result.rows
    ]
    assert agreed(minimax, dataclasses.replace(result, rows=made)) == [True] * 3
    assert agreed(minimax, changed(result, stopped=0.5, interpolated=0.6)) == [False] * 3


def test_stopping_in_time_beats_interpolating_noise_and_great_depth_is_as_infinite(results):
    rows = results[minimax].rows
    stopped, interpolated = np.mean([(row.stopped, row.interpolated) for row in rows], axis=0)
    assert stopped < interpolated
    for deep, infinite in zip(rows[1::2], rows[::2], strict=True):
        assert (deep.depth, infinite.depth) == (1000, math.inf)
        assert deep.stopped == pytest.approx(infinite.stopped, rel=0.02)


def test_risks_are_of_the_size_that_eigenvalues_lead_one_to_expect(results):
    result = results[minimax]
    rows = [row for row in result.of(3, 0.5, math.inf) if row.n_train == SIZES[-1]]
    mean = np.mean([row.stopped for row in rows])
    assert mean == pytest.approx(result.expected[3, 0.5][SIZES[-1]], rel=0.5)


def test_odd_harmonics_are_learned_at_one_half_alone(results):
    result = results[parity]
    assert agreed(parity, result) == [True] * 3
    doctored = dataclasses.replace(changed(result, error=0.5), eigenvalues={0.5: 0.0, 1.0: 0.1})
    assert agreed(parity, doctored) == [False] * 3


def test_images_are_classified_by_each_kernel_and_a_loss_of_accuracy_is_told_apart(results):
    result = results[classification]
    assert [(row.network, row.gamma, row.depth) for row in result.rows] == [
        ("fully connected", 0.0, 10),
        ("fully connected", 0.0, 1000),
        ("fully connected", 0.5, 10),
        ("fully connected", 0.5, 1000),
        ("convolutional", 1.0, 2),
    ]
    assert agreed(classification, result)[:3] == [True] * 3
    rows = [
        dataclasses.replace(row, test_accuracy=0.4 + 0.1 * i, test_accuracy_at_infinity=0.95)
        for i, row in enumerate(result.rows)
    ]
    doctored = agreed(classification, dataclasses.replace(result, rows=rows))
    assert doctored == [False, False, True, False]


def test_finite_networks_have_a_row_per_exponent_and_are_judged_by_their_errors(results):
    result = results[finite_networks]
    assert [(row.gamma, row.networks) for row in result.rows] == [(0.0, 2), (1.0, 2)]
    shallow = changed(result, test_error=0.05).rows
    deep = [
        dataclasses.replace(row, depth=64, test_error=error)
        for row, error in zip(shallow, (0.5, 0.05), strict=True)
    ]
    assert agreed(finite_networks, dataclasses.replace(result, rows=shallow + deep)) == [True, True]
    deep = [dataclasses.replace(row, test_error=0.055 if row.gamma == 0 else 0.3) for row in deep]
    doctored = dataclasses.replace(result, rows=shallow + deep)
    assert agreed(finite_networks, doctored) == [False, False]


def test_every_claim_has_a_figure_with_something_in_each_panel(results):
    for module, result in results.items():
        panels = module.plot(result).axes
        assert all(axes.lines or axes.containers for axes in panels), module.__name__


def test_findings_state_a_criterion_and_numbers(results):
    for module, result in results.items():
        for finding in module.findings(result):
            assert "criterion" in finding.claim
            assert any(letter.isdigit() for letter in finding.measured)


def test_the_interval_of_a_slope_covers_the_truth_19_times_in_20():
    generator = np.random.default_rng(0)
    x = np.tile(np.geomspace(1, 100, 5), 2)
    covered = 0
    for _ in range(1000):
        found = claim.slope(x, x**-0.6 * np.exp(0.1 * generator.standard_normal(x.size)))
        covered += abs(found.value + 0.6) < found.margin
    assert covered == pytest.approx(950, abs=25)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: slow_decay.run([0.5]), r"between 0 and 1/2, got \[0.5\]"),
        (lambda: convergence.run([0.4]), r"at least 1/2, got \[0.4\]"),
        (lambda: minimax.run(SIZES, depths=[10]), "Add math.inf"),
        (lambda: parity.run(depths=[10]), "Add math.inf"),
        (lambda: classification.run("emnist"), "name must be 'digits'"),
    ],
)
def test_what_a_claim_is_not_about_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
