import numpy as np
import pytest

from onnxpress.rewriter.couplings import find_couplings


def f32(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def between(parse, body: str, **weights: np.ndarray):
    """A model with six channels h, and what `body` makes of them, r, in front of the last layer."""
    return parse(
        f"g (float[1,4,6,6] x) => (float[a,b,c,d] y) {{ h = Conv(x, w) {body} y = Conv(r, last) }}",
        w=f32(6, 4, 1, 1),
        last=f32(3, 6, 1, 1),
        **weights,
    )


X = {"x": f32(1, 4, 6, 6)}


@pytest.mark.parametrize(
    "body",
    [
        "r = MaxPool<kernel_shape=[2,2]>(h)",
        "r = AveragePool<kernel_shape=[3,3], strides=[3,3]>(h)",
        "r = LpPool<kernel_shape=[2,2]>(h)",
        "r = GlobalAveragePool(h)",
        "r = GlobalMaxPool(h)",
        "r = GlobalLpPool(h)",
        "r, i = MaxPool<kernel_shape=[2,2]>(h)",
        "p, i = MaxPool<kernel_shape=[2,2], strides=[2,2]>(h) r = MaxUnpool<kernel_shape=[2,2], strides=[2,2]>(p, i)",
        "r = MaxRoiPool<pooled_shape=[2,2]>(h, regions)",
        "r = GridSample(h, grid)",
        "r = RoiAlign<output_height=2, output_width=2>(h, corners, samples)",
    ],
)
def test_pools_each_channel_by_itself(parse, thin_sizes, body: str) -> None:
    corners = np.array([[0, 0, 4, 4], [1, 1, 5, 5]], np.float32)
    regions = np.concatenate([np.zeros((2, 1), np.float32), corners], axis=1)
    model = between(parse, body, corners=corners, regions=regions, samples=np.zeros(2, np.int64), grid=f32(1, 2, 3, 2))
    assert thin_sizes(model, **X) == {"w": 6}


def test_positions_of_maxima_that_somebody_reads_freeze(parse) -> None:
    model = between(parse, "r, i = MaxPool<kernel_shape=[1,1]>(h) f = Cast<to=1>(i) z = Relu(f)")
    assert find_couplings(model).by_name("w").frozen == "'i' holds positions that count through axis 1"


def test_a_told_shape_of_what_was_pooled_freezes(parse) -> None:
    model = parse(
        "g (float[1,4,6,6] x) => (float[1,3,6,6] y) <float[1,6,6,6] r> { h = Conv(x, w) "
        "p, i = MaxPool<kernel_shape=[2,2], strides=[2,2]>(h) "
        "r = MaxUnpool<kernel_shape=[2,2], strides=[2,2]>(p, i, shape) y = Conv(r, last) }",
        w=f32(6, 4, 1, 1),
        last=f32(3, 6, 1, 1),
        shape=np.array([1, 6, 6, 6]),
    )
    assert find_couplings(model).by_name("w").frozen == "MaxUnpool 'r': it is told the shape of its result"
