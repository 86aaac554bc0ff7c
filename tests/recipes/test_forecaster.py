"""What a configuration of a forecaster means: kinds, time steps, and what earlier runs are resumed by."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch._subclasses.fake_tensor import FakeTensorMode

from ladcast.checkpoint import checkpoint_hash
from ladcast.config import ConfigError, parse_config
from ladcast.data.normalization import Normalizer
from ladcast.fields import ERA5_CHANNELS, ChannelSet
from ladcast.forecasting.checkpoints import load_forecaster, read_config
from ladcast.forecasting.codec import LatentCodec
from ladcast.forecasting.stepper import FrameCounts
from ladcast.grid import Grid
from ladcast.models.autoencoder import Autoencoder, AutoencoderConfig
from ladcast.recipes import ForecastValidation, StateStore
from ladcast.recipes.forecaster import ForecasterRecipe, ForecasterRun, check_validation
from ladcast.recipes.latents import latent_effects
from ladcast.recipes.recipe import carry_out, digest
from ladcast.released import find_model
from ladcast.resumable import sole_writer
from ladcast.times import HOUR
from ladcast.training.cost import count_flops

AUTOENCODER = find_model("nature-t31").path
CPU = torch.device("cpu")
SIZE = {
    "heads": 1,
    "head_dim": 8,
    "dual_blocks": 0,
    "single_blocks": 1,
    "refiner_blocks": 0,
    "patch_size": 2,
    "rope_axes_dim": [2, 2, 4],
}
STEPS = 20


@pytest.fixture(scope="module")
def latents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """6-hourly latents of noise."""
    times = np.datetime64("2001-01-01", "ns") + np.arange(STEPS) * 6 * HOUR
    latent = np.random.default_rng(0).standard_normal((STEPS, 32, 16, 32)).astype(np.float32)
    statistics = {"latent_mean": ("channel", np.zeros(32)), "latent_std": ("channel", np.ones(32))}
    ds = xr.Dataset({"latent": (("time", "channel", "y", "x"), latent), **statistics}, {"time": times})
    path = tmp_path_factory.mktemp("data") / "latents.zarr"
    ds.assign_attrs(autoencoder=checkpoint_hash(AUTOENCODER)).to_zarr(path)
    return path


@pytest.fixture(scope="module")
def recipe(latents: Path) -> ForecasterRecipe:
    return ForecasterRecipe.open(run(latents), CPU)


def run(latents: Path, **changes: Any) -> ForecasterRun:
    content = {
        "latents": latents,
        "autoencoder": AUTOENCODER,
        "train": {"start": "2001-01-01", "end": "2001-12-31"},
        "model": SIZE,
        "training": {"steps": 2, "batch_size": 2},
        "output": "run",
    }
    return parse_config({**content, **changes}, ForecasterRun, where="run.yaml")


def changed(recipe: ForecasterRecipe, **changes: Any) -> ForecasterRecipe:
    return replace(recipe, run=run(recipe.run.latents, **changes))


def test_steps_of_12_hours_are_taken_from_latents_of_6(recipe: ForecasterRecipe):
    longer = changed(recipe, frames={"future": 2, "step_hours": 12})
    assert longer.samples == STEPS - 4
    past, future, _ = longer.read(CPU).batch(np.array([3]))
    raw = torch.from_numpy(recipe.latents["latent"].values)
    assert torch.equal(past[0, :, 0], recipe.codec.latent_scale.apply(raw[3]))
    assert torch.equal(future[0, :, 1], recipe.codec.latent_scale.apply(raw[7]))
    assert longer.stepper_config.frames == FrameCounts(1, 2, 12)


def test_sections_of_the_kind_and_those_beside_them_say_the_same(recipe: ForecasterRecipe):
    within = changed(
        recipe,
        model=None,
        stepper={"kind": "diffusion", "model": SIZE, "sampling": {"steps": 7}},
        objective={"noise": {"mean": -1.0}},
    )
    beside = changed(recipe, sampling={"steps": 7}, noise={"mean": -1.0})
    assert within.stepper_config == beside.stepper_config
    assert within.objective_config == beside.objective_config
    assert within.inputs == beside.inputs


def test_a_run_of_an_earlier_version_goes_on(recipe: ForecasterRecipe):
    """What its snapshots hold of the loss: frames without a time step, noise and push-forward."""
    noise = {"mean": -1.2, "std": 1.2}
    push = {"blocks": 1, "sampler": "heun", "steps": 4, "sigma_min": 0.01, "sigma_max": 80.0}
    assert digest(recipe.inputs["loss"]) == digest([{"past": 1, "future": 4}, noise, push])
    assert not {"frames_per_token", "past_beside", "places"} & set(recipe.inputs["model"])
    assert digest(changed(recipe, frames={"step_hours": 12}).inputs["loss"]) != digest(recipe.inputs["loss"])


@pytest.mark.slow
def test_decoded_fields_in_the_loss_are_another_run_and_none_is_as_before(recipe: ForecasterRecipe, monkeypatch):
    """Their decoder is compiled where training is, but not before: counting costs would spoil that."""
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda work, **_: lambda *of: compiled.append(of) or work(*of))
    monkeypatch.setattr("ladcast.recipes.forecaster.compiles", lambda device: True)
    frames, crps = changed(recipe, **ONE_CALL).inputs["loss"]
    assert set(crps) == {"members", "alpha", "blocks", "detach", "pooled", "mean_weight", "kind"}
    training = {"steps": 2, "batch_size": 2, "compile": True}
    decoded = changed(
        recipe, stepper=ONE_CALL["stepper"], objective={"kind": "crps", "decoded": 0.5}, training=training
    )
    weights = ["equal", {}]
    assert decoded.inputs["loss"] == [frames, {**crps, "decoded": 0.5}, *weights]
    objective = decoded.objective(CPU)
    assert objective.fields is not None
    with FakeTensorMode(allow_non_fake_inputs=True):
        objective.fields.decode(torch.zeros(1, 32, 16, 32))
    assert not compiled
    loss = decoded.loss(decoded.network(), CPU)
    value = loss(None, decoded.read(CPU).batch(np.array([0, 3])), torch.Generator().manual_seed(0))
    value.backward()
    assert value.isfinite()
    assert len(compiled) == 2
    assert not any(weight.requires_grad for weight in decoded.codec.parameters())


def test_two_runs_do_not_train_into_one_folder(recipe: ForecasterRecipe, tmp_path: Path):
    """Their snapshots and logs would be mixed."""
    with sole_writer(tmp_path / "resume"), pytest.raises(FileExistsError, match="resume is being written by host"):
        carry_out(lambda _: changed(recipe, output=str(tmp_path)), device="cpu")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"stepper": {"kind": "one_cal"}, "model": None},
            r"Unknown kind of stepper 'one_cal'\. Known",
        ),
        ({"stepper": {"kind": "other"}}, r"Unknown kind of stepper 'other'\. Known kinds: "),
        ({"model": {**SIZE, "latent_channels": 3}}, "model: latent_channels follow from the data"),
        ({"model": {**SIZE, "head": 1}}, r"model: unknown config key 'head'\. Did you mean 'heads'"),
        ({"objective": {"kind": "crp"}}, "Unknown kind of objective 'crp'"),
        ({"objective": {"kind": "crps", "members": 1}}, "'members': Input should be greater than or equal to 2"),
        ({"objective": {"kind": "crps", "alpha": 1.5}}, "'alpha': Input should be less than or equal to 1"),
        ({"stepper": {"kind": "one_call", "noise_features": -1}}, "'noise_features': Input should be greater than"),
        ({"stepper": {"sampler": "heun"}}, r"unknown config key 'sampler'\. Did you mean 'sampling'"),
        ({"model": None}, "model: expected the settings of a transformer"),
    ],
)
def test_what_a_kind_does_not_know_is_refused(recipe: ForecasterRecipe, changes: dict[str, Any], message: str):
    other = changed(recipe, **changes)
    with pytest.raises(ValueError, match=message):
        assert (other.stepper_config, other.objective_config) is None


def test_changes_are_counted_in_units_of_those_between_latents(recipe: ForecasterRecipe):
    """Latents of noise with the standard deviation 0.5 differ by 0.5 sqrt(2) at any distance."""
    found = changed(recipe, changes=True)
    std = torch.tensor(found.stepper_config.change_std)
    assert std.shape == (4, 32)
    torch.testing.assert_close(std, torch.full((4, 32), 0.5 * 2**0.5), rtol=0.05, atol=0)
    assert digest(found.inputs["latents"]) != digest(recipe.inputs["latents"])
    assert recipe.stepper_config.change_std is None


@pytest.fixture
def codec() -> LatentCodec:
    """A codec of three channels with random weights."""
    torch.manual_seed(0)
    autoencoder = Autoencoder(
        AutoencoderConfig(3, 1, 4, (8, 8), (1, 1), ("residual",) * 2, ((), ()), mean_state=(8, 16))
    )
    channels, grid = ChannelSet(("temperature",), ("2m_temperature",), (500, 850)), Grid.parse("16x9-south")
    normalizer = Normalizer(channels, torch.zeros(3), torch.ones(3))
    return LatentCodec(autoencoder, normalizer, grid, static=torch.zeros(1, 8, 16)).eval()


def test_effects_of_latent_channels_add_up_over_channels_of_the_field(codec: LatentCodec, generator: torch.Generator):
    latents = torch.randn(2, 4, 4, 8, generator=generator)
    parts = [latent_effects(codec, latents, row) for row in torch.eye(3)]
    assert all((part > 0).all() for part in parts)
    factors = torch.tensor([0.5, 2.0, 1.0])
    together = sum(factor * part**2 for factor, part in zip(factors, parts, strict=True))
    torch.testing.assert_close(latent_effects(codec, latents, factors) ** 2, together)


def test_effects_count_in_units_of_departures(codec: LatentCodec, generator: torch.Generator):
    latents, even = torch.randn(2, 4, 4, 8, generator=generator), torch.ones(3)
    before = latent_effects(codec, latents, even)
    codec.autoencoder.departure_std.copy_(torch.tensor([0.2, 3.0, 1.0])[:, None, None])
    torch.testing.assert_close(latent_effects(codec, latents, even), before)


@pytest.mark.slow
def test_two_calls_of_the_network_are_planned(recipe: ForecasterRecipe):
    """The forecast between them is counted without values, as all else."""
    double = changed(recipe, push_forward={"blocks": 2, "steps": 2}, frames={"future": 2})
    assert double.sample[1].shape[2] == 4
    with torch.device("meta"):
        network = double.network()
    assert count_flops(network, double.loss(network, CPU), double.sample) > 0


def test_what_costs_the_same_is_counted_once(recipe: ForecasterRecipe):
    """As often as a process plans and trains it, with any options of training; not with other shapes or settings."""
    counted = []

    def counter(network: torch.nn.Module, loss: object, sample: tuple[torch.Tensor, ...], **settings: bool) -> float:
        counted.append((tuple(sample[1].shape), settings))
        return float(len(counted))

    same, other = changed(recipe, training={"steps": 9, "batch_size": 3}), changed(recipe, frames={"future": 2})
    network, loss = torch.nn.Linear(1, 1), lambda *of: torch.zeros(())
    found = [one.count(counter, network, loss) for one in (recipe, same, other, recipe)]
    found.append(recipe.count(counter, network, loss, bf16=True))
    assert found == [1, 1, 2, 1, 3]
    assert counted == [((1, 32, 4, 16, 32), {}), ((1, 32, 2, 16, 32), {}), ((1, 32, 4, 16, 32), {"bf16": True})]


@pytest.fixture(scope="module")
def diffusion(recipe: ForecasterRecipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an untrained diffusion."""
    saved = changed(recipe, output=tmp_path_factory.mktemp("run"))
    return saved.save(saved.network().state_dict())


ONE_CALL = {"stepper": {"kind": "one_call", "noise_features": 3}, "objective": {"kind": "crps"}}


def test_one_call_starts_from_the_backbone_of_a_diffusion(recipe: ForecasterRecipe, diffusion: Path):
    retrofit = changed(recipe, **ONE_CALL, initial=diffusion)
    retrofit.check_initial(read_config(diffusion).stepper)
    network = retrofit.network()
    fresh = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    weights = retrofit.initial_weights(network.state_dict())
    assert torch.equal(weights["noise.weight"], fresh["noise.weight"])
    stored = load_forecaster(diffusion, "cpu").stepper.network.state_dict()
    assert {name: tensor for name, tensor in weights.items() if name in stored}.keys() == stored.keys()
    assert all(torch.equal(weights[name], tensor) for name, tensor in stored.items())
    network.load_state_dict(weights)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {**ONE_CALL, "model": {**SIZE, "single_blocks": 2}},
            r"'network\.single_blocks\.1\..*' has the shape None there",
        ),
        ({"model": {**SIZE, "head_dim": 16, "rope_axes_dim": [4, 6, 6]}}, r"has the shape \(8,.* there, here \(16,"),
    ],
)
def test_another_network_is_no_start(recipe: ForecasterRecipe, diffusion: Path, changes: dict[str, Any], message: str):
    other = changed(recipe, **changes, initial=diffusion)
    with pytest.raises(ConfigError, match=message):
        other.initial_weights(other.network().state_dict())


def test_a_stepper_of_another_making_is_no_start(recipe: ForecasterRecipe, diffusion: Path):
    ours = read_config(diffusion).stepper
    changes = replace(ours, change_std=((1.0,) * 32,) * 4)
    retrofit = changed(recipe, **ONE_CALL)
    with pytest.raises(ConfigError, match="makes frames, as that of this run does, got one that makes changes"):
        retrofit.check_initial(changes)
    with pytest.raises(ConfigError, match="of the kind 'diffusion', got 'one_call'"):
        recipe.check_initial(retrofit.stepper_config)


@pytest.mark.slow
def test_the_rollout_of_one_call_is_planned_and_trained_on(recipe: ForecasterRecipe):
    """Three members over two days cost as much as six forecasts, and the one for the mean as a seventh."""
    flops = []
    for members, blocks, mean_weight in ((2, 1, 0.0), (3, 2, 0.1)):
        objective = {"kind": "crps", "members": members, "blocks": blocks, "mean_weight": mean_weight}
        run = changed(recipe, **ONE_CALL | {"objective": objective})
        assert run.sample[1].shape[2] == 4 * blocks
        with torch.device("meta"):
            network = run.network()
        flops.append(count_flops(network, run.loss(network, CPU), run.sample))
    assert flops[1] / flops[0] == pytest.approx(7 / 2, rel=0.05)


def test_whole_days_are_validated():
    validation = ForecastValidation(StateStore(Path("nowhere"), "64x33-south"), (), variables=())
    with pytest.raises(ConfigError, match="5 hours does not divide"):
        check_validation(validation, ERA5_CHANNELS, 5 * HOUR)
