"""How long a study takes is told before and while it runs, and a run ends when its time is up."""

import dataclasses
import itertools
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmoxi as jm
from jaxmoxi import attribution
from jaxmoxi.attribution import METHODS, methods
from jaxmoxi.study import PRESETS, run, run_study
from jaxmoxi.study.measure import setting
from jaxmoxi.study.progress import Progress, duration
from support.attribution import GRID, IMAGE, LINEAR
from support.study import files, tiny_classifier, tiny_config

SETTINGS = dict(methods=("random", "occlusion"), metrics=("curves",))


class Clock:
    """Time that stands still but for what a step takes."""

    def __init__(self, monkeypatch, seconds):
        self.now, self.seconds = 0.0, seconds
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        real = run.measure_photo
        monkeypatch.setattr(run, "measure_photo", lambda *a, watch, **k: real(*a, **k, watch=self.slow(watch)))

    def slow(self, watch):
        def begin(step):
            context = watch(step)
            self.now += self.seconds
            return context

        return begin


def test_a_run_whose_time_is_up_reports_what_is_there_and_the_next_one_goes_on(models, photos, tmp_path, monkeypatch):
    config = tiny_config(methods=("random",), metrics=("curves",))
    run_study(photos, models, tmp_path / "whole", config, shard_size=4, progress=False)
    with monkeypatch.context() as patch:
        Clock(patch, 10.0)  # two steps a photo
        report = run_study(
            photos, models, tmp_path / "out", config, shard_size=4, max_minutes=0.8, progress=False
        ).read_text()
    assert "**Not finished**: 2 of 5 are measured. The same command goes on." in report
    assert "Photos: 2 ok." in report
    assert [p.name for p in (tmp_path / "out" / "shards").iterdir()] == ["0-000000.part.npz"]
    seen = []
    real = run.measure_photo
    monkeypatch.setattr(run, "measure_photo", lambda *a, **k: seen.append(k["label"]) or real(*a, **k))
    run_study(photos, models, tmp_path / "out", config, shard_size=4, max_minutes=60, progress=False)
    assert len(seen) == 3  # the first two are not measured again
    assert files(tmp_path / "out") == files(tmp_path / "whole")


def test_a_run_too_short_for_a_photo_ends_all_the_same(models, photos, tmp_path, monkeypatch):
    Clock(monkeypatch, 100.0)
    config = tiny_config(methods=("random",), metrics=("curves",))
    report = run_study(photos, models, tmp_path / "out", config, max_minutes=1, progress=False).read_text()
    assert "**Not finished**: 0 of 5 are measured" in report
    for minutes in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="max_minutes must be a number above 0"):
            run_study(photos, models, tmp_path / "out", config, max_minutes=minutes, progress=False)


def test_an_interrupted_run_keeps_the_photos_it_has_measured(models, photos, tmp_path, monkeypatch):
    config = tiny_config(methods=("random",), metrics=("curves",))
    real, count = run.measure_photo, itertools.count()

    def interrupted(*args, **options):
        if next(count) == 3:
            raise KeyboardInterrupt
        return real(*args, **options)

    monkeypatch.setattr(run, "measure_photo", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_study(photos, models, tmp_path / "out", config, shard_size=4, progress=False)
    run_study(photos, models, tmp_path / "out", config, shard_size=4, progress=False)
    assert next(count) == 4 + 2


def test_it_tells_how_long_it_takes_and_how_far_it_is(models, photos, tmp_path, capsys, monkeypatch):
    # What a study does not ask for by itself has its price told apart.
    monkeypatch.setitem(methods._methods, "occlusion", dataclasses.replace(METHODS["occlusion"], by_default=False))
    run_study(photos, models, tmp_path / "out", tiny_config(**SETTINGS, num_photos=3))
    told = capsys.readouterr().err
    # Occlusion asks about each of 8 players and the whole; curves of 2 methods in 2 directions have 9 sizes each.
    assert "tiny: 3 photos, about 45 evaluations each, of which " in told
    assert "tiny: 9 of them are those of occlusion" in told
    assert told.index("in all, and compiling once") < told.index("a photo took ")
    assert "3/3, curves" in told
    assert "135 of 135 evaluations" in told


def test_photos_that_are_left_out_leave_the_plan():
    bar = Progress(30, 3, deadline=None, show=True)
    with bar.photo("m", 10):
        pass  # it cannot be read
    assert (bar.bar.n, bar.bar.total, bar.seconds) == (0, 20, [])
    bar.close()


COUNTED = [name for name, method in METHODS.items() if method.cost and not method.needs and name != "robust"]


@pytest.mark.parametrize("name", COUNTED)  # robust asks games of its own, and its cost is the most that it takes
@pytest.mark.parametrize("steps", [None, 2])
def test_methods_cost_what_their_entries_say(name, steps):
    counted = []

    def v(masks):
        jax.debug.callback(lambda m: counted.append(len(m)), masks)
        return masks @ jnp.arange(9.0) ** 2

    problem = attribution.problem(LINEAR, IMAGE, 2, GRID, v=v)
    effort = attribution.Effort(9, samples=24, steps=steps, batch_size=1)
    METHODS[name].explain(jax.random.key(0), problem, **METHODS[name].keywords(effort))
    jax.effects_barrier()
    tried = 7  # rows by which a function of the user's own is tried, once
    np.testing.assert_allclose(sum(counted) - tried, METHODS[name].cost(effort), rtol=0.12)


def test_the_quick_preset_is_quick():
    """Evaluations of a photo with the demo's methods, which two CPU cores do in under a minute."""
    task = setting(jm.models.demo(), PRESETS["quick"]())
    assert task.evaluations() < 2100
    assert "attention-rollout" not in task.methods


def test_lengths_of_time():
    assert [duration(s) for s in (0.1, 41.0, 600.0, 8000.0)] == ["1 s", "41 s", "10 min", "2.2 h"]


def test_the_price_of_the_robust_group():
    task = setting(tiny_classifier(), tiny_config(methods=("random", "robust"), metrics=("curves",)))
    assert task.price("robust") == 2 * (8 * 36 + 8 * 6 * 8)  # eight rounds in eight removals, and the elimination
    assert task.evaluations() == task.price("robust") + 2 * 2 * 9
