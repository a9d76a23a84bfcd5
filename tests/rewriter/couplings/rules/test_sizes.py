"""Who reads the sizes of axes."""

from onnxpress.rewriter import edits
from onnxpress.rewriter.couplings import find_couplings
from onnxpress.rewriter.walk import graphs


def test_looking_for_readers_of_sizes_does_not_walk_the_model_again(parse, draw, monkeypatch):
    def walks(count):
        body = " ".join(f"s{i} = Shape (h) r{i} = Reshape (h, s{i}) m{i} = MatMul (r{i}, v)" for i in range(count))
        ends = ", ".join(f"float[N, 2] m{i}" for i in range(count))
        model = parse(f"g (float[N, 4] x) => ({ends}) {{ h = MatMul (x, w) {body} }}", w=draw(4, 6), v=draw(6, 2))
        calls = []
        with monkeypatch.context() as patched:
            patched.setattr(edits, "graphs", lambda graph: calls.append(graph) or graphs(graph))
            assert find_couplings(model).by_name("w").frozen is None
        return len(calls)

    assert walks(1) == walks(9)
