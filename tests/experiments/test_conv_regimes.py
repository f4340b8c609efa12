import math

import numpy as np
import pytest

from nt_residual.experiments import conv_regimes

DEPTHS = [8, 64]


@pytest.fixture(scope="module")
def result():
    return conv_regimes.run(DEPTHS, [0.0, 0.5, 1.0], n_images=10)


def _column(result, gamma, name):
    return np.array([getattr(row, name) for row in result.rows if row.gamma == gamma])


def test_there_is_a_row_per_exponent_and_depth(result):
    assert [(row.gamma, row.depth) for row in result.rows] == [
        (gamma, depth) for gamma in (0.0, 0.5, 1.0) for depth in DEPTHS
    ]
    names = [row.regime for row in result.rows[::2]]
    assert names == ["degenerate", "critical", "learnable"]


def test_slowly_falling_alphas_make_all_images_look_alike(result):
    spread, distance = (_column(result, 0.0, name) for name in ("spread", "to_constant"))
    assert np.all(np.diff(spread) < 0)
    assert spread[-1] < spread[0] / 2
    assert distance[-1] < distance[0] / 2
    np.testing.assert_array_equal(distance, _column(result, 0.0, "to_limit"))


@pytest.mark.parametrize("gamma", [0.5, 1.0])
def test_faster_falling_alphas_lead_to_a_limit_like_one_over_depth(result, gamma):
    distance = _column(result, gamma, "to_limit")
    assert distance[0] / distance[1] == pytest.approx(8, rel=0.15)
    assert np.all(_column(result, gamma, "spread") > 0.1)


def test_norms_stay_with_circular_padding_and_fall_with_zeros(result):
    assert [row.diagonal for row in result.rows] == pytest.approx([1.0] * 6, abs=2e-5)
    (padded,) = conv_regimes.run([8], [0.0], n_images=10, padding="SAME").rows
    assert padded.diagonal < 0.5
    assert padded.mean == pytest.approx(_column(result, 0.0, "mean")[0], rel=0.05)


def test_the_figure_has_a_mark_per_row_in_each_panel(result):
    for axes in conv_regimes.plot(result).axes:
        marked = [line for line in axes.lines if line.get_marker() not in ("", "None", None)]
        assert [len(line.get_xdata()) for line in marked] == [2, 2, 2]


def test_infinite_depth_is_refused():
    with pytest.raises(TypeError, match="each of depths must be an integer, got inf"):
        conv_regimes.run([10, math.inf])
