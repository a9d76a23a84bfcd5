from onnxpress.calibration.timing import LEAST, in_turns


class Session:
    """Notes when it runs."""

    def __init__(self, name, log):
        self.name, self.log = name, log

    def fitted(self, batch):
        return batch

    def run(self, batch):
        self.log.append((self.name, batch))
        return {}


def test_runs_in_turns_and_every_other_round_backwards():
    log = []
    times = in_turns([Session("a", log), Session("b", log)], [1, 2], seconds=9, rounds=3)
    assert log[:4] == [("a", 1), ("b", 1), ("a", 2), ("b", 2)]  # to warm up
    assert log[4:] == [("a", 1), ("b", 1), ("b", 2), ("a", 2), ("a", 1), ("b", 1)]
    assert times.shape == (3, 2)
    assert (times >= 0).all()


def test_runs_a_few_rounds_whatever_they_take():
    assert len(in_turns([Session("a", [])], [0], seconds=0, rounds=50)) == LEAST


def test_gives_each_session_its_own_column(monkeypatch):
    clock = [0.0]

    class Slow(Session):
        def run(self, batch):
            clock[0] += self.name
            return {}

    monkeypatch.setattr("onnxpress.calibration.timing.time.perf_counter", lambda: clock[0])
    times = in_turns([Slow(1.0, []), Slow(2.0, [])], [0], seconds=100, rounds=4)
    assert times.tolist() == [[1.0, 2.0]] * 4
