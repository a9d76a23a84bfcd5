"""Rows that come with the equations, where they are asked for."""

import numpy as np
from onnx import helper

from onnxpress.calibration.session import Runner
from onnxpress.passes.equations import equations
from onnxpress.passes.selection import Layout
from onnxpress.rewriter.sites import find_sites


def joined(parts):
    """Inputs of a single group, outputs, and what is added, of all rows."""
    inputs = np.concatenate([rows.inputs[0] for rows in parts])
    outputs = np.concatenate([rows.outputs for rows in parts])
    known = [rows.added for rows in parts if rows.added is not None]
    return inputs, outputs, np.concatenate(known) if known else None


def product(site, rows):
    return rows @ Layout.of(site).to_rows(site.array()).T


def value_of(model, name, x):
    proto = model.to_proto()
    proto.graph.output.add(name=name)
    return Runner(proto.SerializeToString()).run({"x": x})[name]


def changed(model):
    """A clone with half of the first weight."""
    other = model.clone()
    site = find_sites(other)[0]
    other.replace_weight(site.weight, site.array() / 2)
    return other


def test_of_the_sites_that_are_named(chain, batches, bench):
    model = changed(chain)
    first, second = find_sites(model)
    found = dict(equations(model, chain, [first, second], bench(chain, *batches), kept=[first.name]))
    assert found[second].rows == ((), ())
    for parts, shown in zip(found[first].rows, (batches[:3] + batches[4:], batches[3:4]), strict=True):
        inputs, outputs, added = joined(parts)
        np.testing.assert_array_equal(inputs, np.concatenate(shown))
        # float32 products of 6 inputs
        np.testing.assert_allclose(outputs, product(find_sites(chain)[0], inputs), rtol=1e-5, atol=1e-5)
        assert added is None


def test_with_what_is_added(build, array, batches, bench):
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["p"], name="first"),
        helper.make_node("Relu", ["p"], ["r"]),
        helper.make_node("MatMul", ["x", "v"], ["q"], name="second"),
        helper.make_node("Add", ["q", "r"], ["y"]),
    ]
    original = build(nodes, {"w": array(6, 3), "v": array(6, 3)}, x=["n", 6])
    model = changed(original)
    site = find_sites(model)[1]
    ((_, pair),) = equations(model, original, [site], bench(original, *batches), kept=[site.name])
    ours, theirs = (value_of(each, "r", batches[3]) for each in (model, original))
    inputs, outputs, added = joined(pair.rows[1])
    # float32 products of 6 inputs
    np.testing.assert_allclose(added, ours, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(outputs, product(site, inputs) + theirs - ours, rtol=1e-5, atol=1e-5)
    assert np.abs(theirs - ours).max() > 0.1


def test_take_no_more_memory_than_they_may(chain, bench, random, monkeypatch):
    monkeypatch.setattr("onnxpress.passes.equations._KEPT", 4 * (6 + 5) * 4000)
    site = find_sites(chain)[0]
    batches = [random.standard_normal((2048, 6)).astype(np.float32) for _ in range(4)]
    ((_, pair),) = equations(chain, chain, [site], bench(chain, *batches), kept=[site.name])
    assert (pair.fit.count, pair.held_out.count) == (6144, 2048)
    assert [sum(len(rows.outputs) for rows in part) for part in pair.rows] == [3072, 2048]
