"""Training: resume gives the same numbers, the decoder stays frozen, faults are sentences."""

import numpy as np
import pytest
import torch
from hybridgen.simulators import pendulum

from hybridgen.augmentation import expert_augment
from hybridgen.batch import Batch
from hybridgen.errors import CheckpointError, ConfigError, DataError, TrainingError
from hybridgen.models import APHYNITY, Convolutional, NeuralODE, Residual
from hybridgen.train import FitConfig, History, Stage, fit, one_cycle

SMALL = Convolutional(width=4, hidden=16)
SHORT = FitConfig(stages=(Stage(steps=12, batch_size=16),), valid_every=4)


def model(**settings):
    return APHYNITY(pendulum.expert, residual=Residual(hidden=(8,)), encoder=SMALL, **settings)


@pytest.fixture(scope="module")
def train():
    return pendulum.simulator.sample(40, seed=0, split="train")


@pytest.fixture(scope="module")
def valid():
    return pendulum.simulator.sample(20, seed=0, split="valid")


@pytest.fixture(scope="module")
def base(train, valid):
    return fit(model(), train, valid, SHORT)[0]


def same(a, b):
    return all(
        torch.equal(x, y)
        for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )


def test_training_improves_and_leaves_the_given_model(train, valid):
    start = model()
    before = {k: v.clone() for k, v in start.state_dict().items()}
    config = FitConfig(stages=(Stage(steps=150, learning_rate=0.01),), valid_every=30)
    trained, history = fit(start, train, valid, config)
    assert history.rows[-1]["valid"] < 0.5 * history.rows[0]["valid"]
    assert all(torch.equal(before[k], v) for k, v in start.state_dict().items())
    assert trained.is_bound
    assert int(trained.window) == 50


def test_same_seed_same_weights(train, valid, base):
    again, _ = fit(model(), train, valid, SHORT)
    assert same(base, again)
    other, _ = fit(model(), train, valid, FitConfig(stages=SHORT.stages, seed=1, valid_every=4))
    assert not same(base, other)


class Interrupt:
    """Raises as Ctrl-C would, once the training has come to `at` updates."""

    def __init__(self, at):
        self.at = at

    def __call__(self, progress):
        if progress.done >= self.at:
            raise KeyboardInterrupt


@pytest.mark.parametrize("objective", ["weak", "rollout"])
@pytest.mark.parametrize("at", [4, 8, 12, 16])
def test_resume_gives_the_same_numbers(train, valid, tmp_path, objective, at):
    stages = (SHORT.stages[0], Stage(objective=objective, steps=6, batch_size=4, trains="encoder"))
    config = FitConfig(stages=stages, valid_every=4)
    unbroken, history = fit(model(), train, valid, config)
    with pytest.raises(KeyboardInterrupt):
        fit(model(), train, valid, config, checkpoint=tmp_path / "c", progress=Interrupt(at))
    resumed, told = fit(model(), train, valid, config, checkpoint=tmp_path / "c", resume=True)
    assert same(unbroken, resumed)
    assert told == history


def test_an_interruption_between_looks_loses_nothing(train, valid, tmp_path, monkeypatch):
    config = FitConfig(stages=(Stage(steps=10, batch_size=8),), valid_every=100)
    unbroken, _ = fit(model(), train, valid, config)
    calls = []
    update = fit.__globals__["_Run"]._update

    def stopping(self, stage, optimiser):
        calls.append(self.step)
        if len(calls) == 7:
            raise KeyboardInterrupt
        return update(self, stage, optimiser)

    with monkeypatch.context() as patch:
        patch.setattr(fit.__globals__["_Run"], "_update", stopping)
        with pytest.raises(KeyboardInterrupt):
            fit(model(), train, valid, config, checkpoint=tmp_path / "c")
    resumed, _ = fit(model(), train, valid, config, checkpoint=tmp_path / "c", resume=True)
    assert same(unbroken, resumed)


def test_resume_of_a_supervised_stage(train, base, tmp_path):
    augmenter = expert_augment(base, train)
    stage = Stage(objective="supervised", steps=12, batch_size=8, pool=30, refresh=5)
    config = FitConfig(stages=(stage,), valid_every=4)
    unbroken, _ = fit(base, augmenter, config=config)
    with pytest.raises(KeyboardInterrupt):
        fit(base, augmenter, config=config, checkpoint=tmp_path / "c", progress=Interrupt(8))
    resumed, _ = fit(base, augmenter, config=config, checkpoint=tmp_path / "c", resume=True)
    assert same(unbroken, resumed)


def test_s0_7_7_decoder_is_bit_identical_after_augmentation(train, base):
    stage = Stage(objective="supervised", steps=5, batch_size=8, pool=20)
    plus, _ = fit(base, expert_augment(base, train), config=FitConfig(stages=(stage,)))
    inside = {f"encoder.{k}" for k in base.encoder.state_dict()}
    changed = 0
    for (name, before), after in zip(
        base.state_dict().items(), plus.state_dict().values(), strict=True
    ):
        if name in inside:
            changed += int(not torch.equal(before, after))
        else:
            assert torch.equal(before, after), name
    assert changed > 0


def test_encoder_alone_on_data_leaves_the_decoder(train, valid, base):
    stage = Stage(steps=5, batch_size=8, trains="encoder")
    more, _ = fit(base, train, valid, FitConfig(stages=(stage,)))
    for before, after in zip(base.decoder_parameters(), more.decoder_parameters(), strict=True):
        assert torch.equal(before, after)
        assert after.requires_grad
    assert not same(base, more)


def test_network_alone_and_rollout_stages_run(train, valid):
    config = FitConfig(
        stages=(Stage(steps=4, batch_size=8), Stage(objective="rollout", steps=2, batch_size=4))
    )
    network = NeuralODE(pendulum.expert.states, hidden=(8,), encoder=SMALL)
    trained, history = fit(network, train, valid, config)
    assert [s["name"] for s in history.stages] == ["weak", "rollout"]
    assert "solver_gap" in history.rows[-1]
    assert trained.is_bound


def test_selection_takes_the_best_validation_loss(train, valid):
    config = FitConfig(stages=(Stage(steps=40, batch_size=8, learning_rate=0.05),), valid_every=4)
    trained, history = fit(model(), train, valid, config)
    best = min(row["valid"] for row in history.rows)
    again, _ = fit(trained, train, valid, FitConfig(stages=(Stage(steps=1, learning_rate=1e-12),)))
    row = fit(trained, train, valid, FitConfig(stages=(Stage(steps=1, learning_rate=1e-12),)))[
        1
    ].rows[0]
    assert np.isclose(row["valid"], best, rtol=1e-3)
    assert again.is_bound


def test_history_becomes_a_dataset(base, train, valid):
    _, history = fit(model(), train, valid, SHORT)
    data = history.to_dataset()
    assert data["step"].values.tolist() == [4, 8, 12]
    assert {"loss", "valid", "fit", "norm", "gauge"} <= set(data)
    twice = history.then(history)
    assert isinstance(twice, History)
    assert [row["step"] for row in twice.rows] == [4, 8, 12, 16, 20, 24]
    assert [(s["start"], s["stop"]) for s in twice.stages] == [(0, 12), (12, 24)]


def test_failed_simulations_are_left_out_of_training(train, valid):
    bad = train.copy(deep=True)
    bad["y"][3] = np.nan
    bad["status"][3] = 4
    trained, _ = fit(model(), bad, valid, SHORT)
    assert all(p.isfinite().all() for p in trained.parameters())


def leaking(train, valid):
    return fit(model(), train, train, SHORT)


def without_validation(train, valid):
    return fit(model(), train, None, SHORT)


def with_nan(train, valid):
    return fit(model(), train.assign(y=train["y"].where(train["y"] < 1.0)), valid, SHORT)


def empty(train, valid):
    return fit(model(), train.isel(sample=slice(0)), valid, SHORT)


def supervised_on_data(train, valid):
    return fit(model(), train, valid, FitConfig(stages=(Stage(objective="supervised"),)))


def exploding(train, valid):
    return fit(model(), train, valid, FitConfig(stages=(Stage(steps=40, learning_rate=1e30),)))


def resume_without_folder(train, valid):
    return fit(model(), train, valid, SHORT, resume=True)


@pytest.mark.parametrize(
    ("run", "error", "message"),
    [
        (leaking, DataError, "40 of 40 are in them"),
        (without_validation, DataError, r"fit\(model, train, valid\)"),
        (with_nan, DataError, "training samples hold NaN, the first is sample"),
        (empty, DataError, "the training data have no samples"),
        (supervised_on_data, ConfigError, "'supervised' does not go with a data set"),
        (exploding, TrainingError, "lower learning_rate"),
        (resume_without_folder, ConfigError, "resume=True needs checkpoint="),
    ],
)
def test_faults_are_sentences(train, valid, run, error, message):
    with pytest.raises(error, match=message):
        run(train, valid)


def test_resume_on_other_data_or_settings_is_refused(train, valid, tmp_path):
    fit(model(), train, valid, SHORT, checkpoint=tmp_path / "c")
    with pytest.raises(CheckpointError, match="another config"):
        fit(
            model(),
            train,
            valid,
            FitConfig(stages=SHORT.stages, seed=9, valid_every=4),
            checkpoint=tmp_path / "c",
            resume=True,
        )
    with pytest.raises(CheckpointError, match="another data"):
        fit(
            model(),
            pendulum.simulator.sample(40, seed=7),
            valid,
            SHORT,
            checkpoint=tmp_path / "c",
            resume=True,
        )


def test_untrained_model_has_no_population(train):
    with pytest.raises(TrainingError, match="not trained yet"):
        expert_augment(model(), train)


def test_a_batch_is_data_too(train, valid):
    from hybridgen.io import to_batch

    batch = to_batch(train, labels=False)
    assert isinstance(batch, Batch)
    trained, _ = fit(
        model(), batch, valid, FitConfig(stages=SHORT.stages, window=30, valid_every=4)
    )
    assert int(trained.window) == 30


def test_one_cycle_rises_and_falls():
    values = [one_cycle(p) for p in np.linspace(0, 1, 101)]
    assert np.argmax(values) == 20
    assert max(values) == 1.0
    assert abs(values[-1]) < 1e-12
