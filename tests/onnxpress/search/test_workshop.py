"""A model is made once, and what several plans begin with once for all."""

import pytest

from onnxpress.calibration.feeds import open_feed
from onnxpress.calibration.session import Runner
from onnxpress.passes.base import Workbench
from onnxpress.passes.encode.encode import Encode
from onnxpress.passes.normalise import Normalise
from onnxpress.passes.pipeline import Pipeline
from onnxpress.passes.share.budget import ShareBudget
from onnxpress.passes.share.kmeans import ShareKMeans
from onnxpress.recipe import plain
from onnxpress.rewriter.errors import ConfigError
from onnxpress.rewriter.model import Model
from onnxpress.search import workshop as module
from onnxpress.search.plans import Plan
from onnxpress.search.workshop import Workshop

FINISH = Encode(measure=False, least_saving=0)


@pytest.fixture
def bench(model, samples):
    with Runner(model) as runner:
        return Workbench(feed=open_feed(samples, inputs=runner.input_specs))


@pytest.fixture
def workshop(tmp_path, model, bench):
    made = Workshop(tmp_path, bench)
    made.start(Model.load(model), Normalise())
    return made


def test_equals_a_pipeline(workshop, model, bench, tmp_path):
    plan = Plan("p", (ShareKMeans(bits=2, min_size=1), FINISH))
    made = workshop.make(plan)
    Pipeline(plan.passes)(Model.load(model), bench).model.save(tmp_path / "alone.onnx")
    assert made.path.read_bytes() == (tmp_path / "alone.onnx").read_bytes()
    assert [each.name for each in made.reports] == ["normalise", "share-kmeans", "encode"]
    assert [each.name for each in made.stages] == ["normalise", "share-kmeans", "encode"]
    assert made.stages[-1].nbytes == made.path.stat().st_size


def test_is_made_once_and_again_when_it_was_dropped(workshop, monkeypatch):
    applied = []
    apply = ShareKMeans.apply
    monkeypatch.setattr(ShareKMeans, "apply", lambda self, *given: applied.append(self) or apply(self, *given))
    plan = Plan("p", (ShareKMeans(bits=2, min_size=1), FINISH))
    first = workshop.make(plan).path.read_bytes()
    assert workshop.make(plan).path.read_bytes() == first
    assert len(applied) == 1
    workshop.drop(plan)
    assert not workshop.has(plan.passes)
    assert workshop.make(plan).path.read_bytes() == first


def test_sizes_are_measured_once(workshop, model, bench, tmp_path, monkeypatch):
    measured = []
    measure = ShareBudget.measure
    monkeypatch.setattr(ShareBudget, "measure", lambda self, *given: measured.append(self) or measure(self, *given))
    plans = [Plan(str(ratio), (ShareBudget(ratio=ratio, min_size=64), FINISH)) for ratio in (3, 5)]
    made = [workshop.make(plan) for plan in plans]
    assert len(measured) == 1
    monkeypatch.undo()
    for plan, each in zip(plans, made, strict=True):
        alone = Pipeline(plan.passes)(Model.load(model), bench)
        alone.model.save(tmp_path / "alone.onnx")
        assert each.path.read_bytes() == (tmp_path / "alone.onnx").read_bytes()
        assert each.reports[1].options == plain(alone.reports[1].options)
        assert [change.site for change in each.reports[1].changes] == [c.site for c in alone.reports[1].changes]


def test_a_place_that_cannot_be_written_to_is_named(tmp_path, bench):
    (tmp_path / "models").write_text("a file")
    with pytest.raises(ConfigError, match=r"cannot be written to: .*; name another folder"):
        Workshop(tmp_path, bench)


def test_a_model_goes_whole_or_not_at_all(workshop, monkeypatch):
    plan = Plan("p", (ShareKMeans(bits=2, min_size=1), FINISH))
    first = workshop.make(plan).path.read_bytes()

    def killed(path, **_):
        (path / "account.json").unlink(missing_ok=True)

    with monkeypatch.context() as patch:
        patch.setattr(module.shutil, "rmtree", killed)
        workshop.drop(plan)
    assert workshop.make(plan).path.read_bytes() == first
    workshop.drop(plan)
    assert not workshop.has(plan.passes)
