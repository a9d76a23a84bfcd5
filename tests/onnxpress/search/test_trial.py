"""Which of two candidates keeps to the budget more surely."""

import pytest

from onnxpress.search.trial import Trial


def trial(probability, sqnr):
    return Trial(name="t", key="k", passes=(), outcome="accepted", probability=probability, sqnr=sqnr)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ((0.9, 20.0), (0.8, 30.0), True),
        ((0.8, 30.0), (0.9, 20.0), False),
        ((1.0, 30.0), (1.0, 20.0), True),
        ((None, 30.0), (None, 20.0), True),
        ((None, 20.0), (None, 20.0), False),
        ((None, None), (None, 20.0), True),
    ],
)
def test_the_probability_comes_first_and_then_the_noise(one, other, expected):
    assert trial(*one).surer_than(trial(*other)) is expected
