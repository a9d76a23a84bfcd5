"""Padding, scaling, blocks of pixels."""

import numpy as np
import pytest


def rows(group, *names):
    return [
        next(m for m in group.members if m.tensor.name == name and m.role == "in").indices.tolist() for name in names
    ]


@pytest.mark.parametrize("opset", [9, 17, 18])
def test_channels_between_zero_channels_may_go(parse, thin, draw, opset):
    node = {
        9: "p = Pad <pads = [0, 1, 1, 0, 2, 1]> (c)",
        17: "p = Pad (c, pads)",
        18: "p = Pad (c, short, , axes)",
    }[opset]
    model = parse(
        f"g (float[N, 3, 4] x) => (float[N, 5, 6] y) {{ c = Conv (x, w) {node} y = Conv (p, v) }}",
        opset=opset,
        w=draw(4, 3, 1),
        v=draw(5, 7, 1),
        pads=np.array([0, 1, 1, 0, 2, 1]),
        short=np.array([1, 1, 2, 1]),
        axes=np.array([1, 2]),
    )
    found = thin(model, x=draw(2, 3, 4))
    assert [rows(g, "v") for g in found.values() if g.frozen is None] == [[[[1], [2], [3], [4]]]]


def test_channels_padded_by_their_neighbours_stay(parse, groups, draw):
    model = parse(
        "g (float[N, 3, 4] x) => (float[N, 5, 4] y) "
        '{ c = Conv (x, w) p = Pad <mode = "edge"> (c, pads) y = Conv (p, v) }',
        w=draw(4, 3, 1),
        v=draw(5, 6, 1),
        pads=np.array([0, 1, 0, 0, 1, 0]),
    )
    assert all(group.frozen for group in groups(model).values())


@pytest.mark.parametrize(
    ("opset", "node"),
    [
        (9, 'p = Upsample <mode = "nearest"> (c, scales)'),
        (10, "p = Resize (c, scales)"),
        (13, "p = Resize (c, , scales)"),
        (13, "p = Resize (c, , , sizes)"),
        (13, "s = Shape (c) n = Slice (s, zero, two) t = Concat <axis = 0> (n, eight) p = Resize (c, , , t)"),
        (13, "s = Shape (c) n = Slice (s, zero, one) t = Concat <axis = 0> (n, last) p = Resize (c, , , t)"),
        (18, "p = Resize <axes = [1, 2]> (c, , , some)"),
        (18, "p = Resize <axes = [2]> (c, , twice)"),
    ],
)
def test_channels_that_are_not_scaled_may_go(parse, thin, draw, opset, node):
    model = parse(
        f"g (float[2, 3, 4] x) => (float[2, 5, 8] y) {{ c = Conv (x, w) {node} y = Conv (p, v) }}",
        opset=opset,
        w=draw(6, 3, 1),
        v=draw(5, 6, 1),
        scales=np.array([1, 1, 2], np.float32),
        sizes=np.array([2, 6, 8]),
        eight=np.array([8]),
        last=np.array([6, 8]),
        some=np.array([6, 8]),
        twice=np.array([2], np.float32),
        zero=np.array([0]),
        one=np.array([1]),
        two=np.array([2]),
    )
    found = thin(model, x=draw(2, 3, 4))
    assert [g.size for g in found.values() if g.frozen is None] == [6]


def test_scaled_channels_stay(parse, groups, draw):
    model = parse(
        "g (float[2, 3, 4] x) => (float[2, 5, 4] y) { c = Conv (x, w) p = Resize (c, , scales) y = Conv (p, v) }",
        w=draw(6, 3, 1),
        v=draw(5, 12, 1),
        scales=np.array([1, 2, 1], np.float32),
    )
    assert all(group.frozen for group in groups(model).values())


@pytest.mark.parametrize("axis", [1, -2])
def test_channels_that_are_scaled_to_as_many_stay(parse, groups, draw, axis):
    model = parse(
        f"g (float[2, 3, 4] x) => (float[2, 5, 4] y) "
        f"{{ c = Conv (x, w) p = Resize <axes = [{axis}]> (c, , scale) y = Conv (p, v) }}",
        opset=18,
        w=draw(6, 3, 1),
        v=draw(5, 6, 1),
        scale=np.array([1.1], np.float32),
    )
    reasons = {group.frozen for group in groups(model).values()}
    assert "Resize 'p' scales axis 1 of 'c'" in reasons


@pytest.mark.parametrize(
    ("opset", "attribute"),
    [(13, 'coordinate_transformation_mode = "tf_crop_and_resize"'), (18, 'keep_aspect_ratio_policy = "not_larger"')],
)
def test_cropping_and_ratios_freeze(parse, groups, draw, opset, attribute):
    model = parse(
        "g (float[2, 3, 4] x) => (float[2, 5, 4] y) "
        f"{{ c = Conv (x, w) p = Resize <{attribute}> (c, , , sizes) y = Conv (p, v) }}",
        opset=opset,
        w=draw(6, 3, 1),
        v=draw(5, 6, 1),
        sizes=np.array([2, 6, 4]),
    )
    assert any("it crops, or keeps the ratio" in (group.frozen or "") for group in groups(model).values())


@pytest.mark.parametrize(("mode", "expected"), [("DCR", [0, 2, 4, 6]), ("CRD", [0, 1, 2, 3])])
def test_channels_that_become_pixels_go_in_whole_blocks(parse, thin, draw, mode, expected):
    model = parse(
        f"g (float[N, 3, 4, 4] x) => (float[N, 5, 8, 8] y) {{ c = Conv (x, w) "
        f'p = DepthToSpace <blocksize = 2, mode = "{mode}"> (c) y = Conv (p, v) }}',
        w=draw(8, 3, 1, 1),
        v=draw(5, 2, 1, 1),
    )
    free = next(g for g in thin(model, x=draw(1, 3, 4, 4)).values() if g.frozen is None)
    assert next(m for m in free.members if m.tensor.name == "w").indices[0].tolist() == expected


def test_pixels_that_become_channels_go_with_their_channel(parse, thin, draw):
    model = parse(
        "g (float[N, 3, 4, 4] x) => (float[N, 5, 2, 2] y) { c = Conv (x, w) p = SpaceToDepth <blocksize = 2> (c) "
        "y = Conv (p, v) }",
        w=draw(6, 3, 1, 1),
        v=draw(5, 24, 1, 1),
    )
    free = next(g for g in thin(model, x=draw(1, 3, 4, 4)).values() if g.frozen is None)
    assert rows(free, "v")[0][1] == [1, 7, 13, 19]
