"""What a model came to after each pass."""

from itertools import islice

from onnxpress.calibration.feeds import open_feed
from onnxpress.calibration.session import Runner
from onnxpress.passes.encode.encode import Encode
from onnxpress.passes.pipeline import Pipeline
from onnxpress.passes.share.kmeans import ShareKMeans
from onnxpress.rewriter.model import Model
from onnxpress.stages import Pace, Stages


def test_notes_bytes_as_saved_after_each_pass(model, out):
    stages = Stages()
    result = Pipeline([ShareKMeans(bits=2), Encode()], after=stages.add)(Model.load(model))
    names, sizes = zip(*((each.name, each.nbytes) for each in stages.found), strict=True)
    assert names == ("normalise", "share-kmeans", "encode")
    assert sizes[-1] == result.model.save(out) < sizes[0]
    assert [each.seconds for each in stages.found] == [each.seconds for each in result.reports]
    assert {each.speedup for each in stages.found} == {None}


def test_times_each_against_the_input_where_that_is_wanted(model, samples, slow):
    with Runner(model) as runner:
        feed = open_feed(samples, inputs=runner.input_specs)
    stages = Stages(Pace(source=model, feed=feed, threads=1, seconds=0.01))
    Pipeline([slow], normalise=False, after=stages.add)(Model.load(model))
    (stage,) = stages.found
    assert stage.speedup is not None
    assert 0 < stage.speedup < 1  # thirty large products were added
    assert list(islice(model.parent.iterdir(), 2)) == [model]
