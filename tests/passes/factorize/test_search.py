"""Which budget is tried next."""

import math

import pytest

from onnxpress.passes.factorize.search import _onward
from onnxpress.passes.quantize.precision import Demand, Verdict

SQNR, DROP = Demand(min_sqnr=20.0), Demand(max_drop=0.01)


@pytest.mark.parametrize(
    ("promised", "verdict", "demand", "failing", "holding", "onward"),
    [
        (20.0, Verdict(23.0), SQNR, -math.inf, 20.0, 17.2),  # what is better than it must be
        (20.0, Verdict(18.0), SQNR, 20.0, math.inf, 22.2),
        (20.0, Verdict(20.3), SQNR, -math.inf, 20.0, None),  # near enough
        (20.0, Verdict(90.0), SQNR, -math.inf, 20.0, 12.0),  # a Softmax hides noise
        (12.0, Verdict(60.0), SQNR, -math.inf, 12.0, None),
        (22.0, Verdict(25.0), SQNR, 20.0, 22.0, 21.0),  # between what failed and what held
        (20.2, Verdict(21.0), SQNR, 20.0, 20.2, None),
        (20.0, Verdict(30.0, 0.0), DROP, -math.inf, 20.0, 14.0),
        (20.0, Verdict(30.0, 0.02), DROP, 20.0, math.inf, 26.0),
        (20.0, Verdict(30.0, 0.02), DROP, 20.0, 26.0, 23.0),
        (20.0, Verdict(math.nan), SQNR, 20.0, math.inf, 26.0),
    ],
)
def test_the_next_budget_follows_from_the_last(promised, verdict, demand, failing, holding, onward):
    assert _onward(promised, verdict, demand, failing, holding) == pytest.approx(onward)
