import numpy as np

from onnxpress.calibration.metrics import top1
from onnxpress.calibration.session import Runner
from onnxpress.models import characters, zoo
from onnxpress.models.sections import texts_of


def test_every_character_has_one_number() -> None:
    found = characters.characters()
    assert len(found) == len(set(found)) == 465
    assert (found[0], found[-1]) == ("", "<s>")
    assert set("abcdefghijklmnopqrstuvwxyzABC0123456789 ,.-") <= set(found)


def test_contexts_spell_the_text_before_the_label() -> None:
    feed, names = characters.labelled(samples=3, batch=2), characters.characters()
    batches = list(feed)
    assert [batch["chars"].shape for batch in batches] == [(2, 40), (1, 40)]
    assert feed.labels is not None
    text = texts_of("test")[0][0]
    shown = "".join(names[code] for code in batches[0]["chars"][1]).removeprefix("<s>")
    assert text.startswith(shown + names[feed.labels[1]])
    assert len(shown) == 11


def test_calibration_has_no_labels_and_takes_no_test_text() -> None:
    feed = characters.calibration(samples=100)
    assert feed.labels is None
    assert not set(texts_of("train")[0][::10]) & set(texts_of("test")[0])
    assert all(batch["chars"].dtype == np.int64 for batch in feed)


def test_the_model_guesses_nearly_every_second_character() -> None:
    with Runner(zoo.path("textgen"), threads=1) as runner:
        assert top1(runner, characters.labelled(samples=500)) > 0.42
