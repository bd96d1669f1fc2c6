"""`gen.from_diffusers` beside diffusers itself, key by key; and what it refuses.

The peer's answers are kept in `diffusers_kept.json`, and made again where diffusers is installed.
"""

import importlib.util
import inspect
import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf
from rootflow import generative as gen
from rootflow.generative.configs.keys import DEFAULTS, ELSEWHERE, NOTES, WITHOUT_EFFECT
from rootflow.generative.configs.main import BUILDERS, NOT_READ

from .diffusers_cases import CASES, CLOSE, KEPT, NOISE, SHAPE, START, label, network, ours, peer

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "guides" / "from_diffusers.md"
NAMES = sorted({case[0] for case in CASES})
KEPT_CASES = json.loads(KEPT.read_text(encoding="utf-8"))["cases"]


@pytest.fixture
def given_noise(monkeypatch):
    """The draws of `sample`, in turn, instead of random ones."""
    left = []
    monkeypatch.setattr(jax.random, "normal", lambda *_: jnp.asarray(left.pop(0)))
    return left


@pytest.mark.parametrize("name", NAMES)
def test_the_loop_of_diffusers(name, given_noise):
    for case in CASES:
        if case[0] != name:
            continue
        kept = KEPT_CASES[label(case)]
        given_noise[:] = list(NOISE)
        x, setup, told = ours(*case, key=jax.random.key(0))
        there = kept["labels"]
        assert len(told) in (len(there), len(there) - 1)  # without a last step of no size
        np.testing.assert_allclose(told, there[: len(told)], atol=1e-9)
        begins = np.asarray(setup.labels)
        assert len(begins) == len(setup.times) - (not setup.denoise) and not setup.notes
        assert (np.abs(begins[:, None] - told).min(axis=1) < 1e-9).all()
        # A variance of 0 is one of 1e-20 there.
        np.testing.assert_allclose(x.ravel(), kept["sample"], rtol=1e-9, atol=5e-10)


@pytest.mark.parametrize("case", CLOSE, ids=lambda case: case[0])
def test_where_samples_differ_a_warning_says_so(case, given_noise):
    given_noise[:] = list(NOISE)
    with pytest.warns(UserWarning, match=case[0]):
        x, setup, _ = ours(*case[:4], key=jax.random.key(0))
    kept = np.asarray(KEPT_CASES[label(case[:4])]["sample"])
    apart = np.abs(np.ravel(x) - kept).max() / np.abs(kept).max()
    assert case[4] / 10 < apart < case[4] and len(setup.notes) == 1


@pytest.mark.filterwarnings("error")
def test_equal_steps_and_other_classes_are_read_without_a_warning():
    for name in sorted(BUILDERS):
        assert gen.from_diffusers({"_class_name": name}, 20, eta=None).notes == ()
    for spacing, steps in (("trailing", 25), ("trailing", 50), ("leading", 33)):
        keys = {"timestep_spacing": spacing, "steps_offset": 1, "set_alpha_to_one": False}
        gen.from_diffusers({"_class_name": "DDIMScheduler", "clip_sample": False, **keys}, steps)


NEEDS_TORCHSDE = "DPMSolverSDEScheduler"


def missing(name):
    """Whether the peer cannot make this class for want of a package."""
    return name == NEEDS_TORCHSDE and importlib.util.find_spec("torchsde") is None


def test_the_kept_numbers_are_those_of_diffusers():
    pytest.importorskip("diffusers").logging.set_verbosity_error()
    for case in [*CASES, *(case[:4] for case in CLOSE)]:
        if missing(case[0]):
            continue
        x, told = peer(*case)
        kept = KEPT_CASES[label(case)]
        np.testing.assert_allclose(x.ravel(), kept["sample"], rtol=1e-11, atol=1e-12)
        np.testing.assert_allclose(told, kept["labels"], rtol=0, atol=1e-11)


def test_every_class_of_diffusers_is_known_with_its_keys_and_defaults():
    schedulers = pytest.importorskip("diffusers").schedulers
    names = {name for name in dir(schedulers) if name.endswith("Scheduler") and "Flax" not in name}
    assert names <= {*BUILDERS, *NOT_READ} and len(names) > 50
    for name in BUILDERS:
        if missing(name):
            continue
        taken = inspect.signature(getattr(schedulers, name).__init__).parameters
        taken = {key: p.default for key, p in taken.items() if key not in ("self", "kwargs")}
        mine = {k: v for k, v in DEFAULTS[name].items() if k in taken}
        assert mine == taken, name
        assert set(DEFAULTS[name]) - set(taken) <= {"sigma_min", "sigma_max"}


def test_the_guide_has_every_class():
    rows = re.findall(
        r"^\| `(\w+Scheduler)` \| (same|here|not here) \|",
        GUIDE.read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    assert len(rows) == len(dict(rows)) and set(dict(rows)) == {*BUILDERS, *NOT_READ}
    same = {name for name, how in rows if how == "same"}
    assert same == set(BUILDERS) == set(NAMES)


# Keys that matter beside others alone.
SIGMAS = {"use_karras_sigmas": True}
FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
BESIDE = {
    "dynamic_thresholding_ratio": {"thresholding": True, "sample_max_value": 2.0},
    "sample_max_value": {"thresholding": True},
    "clip_sample_range": {"clip_sample": True},
    "sigma_min": SIGMAS,
    "sigma_max": SIGMAS,
    "flow_shift": FLOW,
    "use_dynamic_shifting": FLOW,
    "time_shift_type": {"use_dynamic_shifting": True},
    "shift_terminal": FLOW,
    "steps_offset": {"timestep_spacing": "leading"},
    "base_shift": {"use_dynamic_shifting": True},
    "max_shift": {"use_dynamic_shifting": True},
    "base_image_seq_len": {"use_dynamic_shifting": True},
    "max_image_seq_len": {"use_dynamic_shifting": True},
    "timestep_type": {"prediction_type": "v_prediction"},
    "euler_at_final": {"final_sigmas_type": "sigma_min", "lower_order_final": False},
    "rescale_betas_zero_snr": {
        "prediction_type": "v_prediction",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
    },
    "lower_order_final": {"final_sigmas_type": "sigma_min"},
    "set_alpha_to_one": {"steps_offset": 1},
}
OTHER = {
    "num_train_timesteps": 500, "beta_start": 0.0002, "beta_end": 0.03,
    "beta_schedule": "squaredcos_cap_v2", "trained_betas": [0.01] * 1000,
    "prediction_type": "sample", "timestep_spacing": "trailing", "steps_offset": 1,
    "clip_sample_range": 0.5,
    "dynamic_thresholding_ratio": 0.9, "sample_max_value": 1.5, "sigma_min": 0.1,
    "sigma_max": 5.0, "flow_shift": 2.0, "shift": 2.0, "solver_order": 1, "algorithm_type":
    "sde-dpmsolver++", "solver_type": "heun", "final_sigmas_type": "sigma_min",
    "variance_type": "learned", "lambda_min_clipped": -3.0, "disable_corrector": [0],
    "solver_p": 1, "shift_terminal": 0.1, "base_shift": 0.4, "max_shift": 1.0,
    "base_image_seq_len": 128, "max_image_seq_len": 2048, "snr_shift_scale": 2.0,
    "sigma_data": 1.0, "sigma_schedule": "exponential", "rho": 5.0,
    "interpolation_type": "log_linear", "timestep_type": "continuous",
    "time_shift_type": "linear", "predict_x0": False, "predictor_order": 1, "corrector_order": 3,
    "original_inference_steps": 40, "timestep_scaling": 1.0, "tau_func": abs,
    "noise_sampler_seed": 1,
}  # fmt: skip


def said(setup):
    """All of a setup, to compare."""
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(setup.schedule)]
    table = np.concatenate([np.ravel(leaf) for leaf in [*leaves, setup.times]])
    rest = (setup.predicts, setup.sampler, setup.scale, setup.denoise, setup.threshold,
            setup.sigma_data, setup.negated, setup.evaluations,
            np.asarray(setup.labels).tolist(), type(setup.schedule))  # fmt: skip
    return table.tolist(), rest


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
@pytest.mark.parametrize("name", sorted(BUILDERS))
def test_no_key_is_ignored(name):
    plain = {"_class_name": name, "clip_sample": False} if "clip_sample" in DEFAULTS[name] else {
        "_class_name": name
    }  # fmt: skip
    for key, default in DEFAULTS[name].items():
        if key in WITHOUT_EFFECT.get(name, ()):
            continue
        beside = {k: v for k, v in BESIDE.get(key, {}).items() if k in DEFAULTS[name]}
        if key in ("time_shift_type", "use_dynamic_shifting") and "flow_shift" in DEFAULTS[name]:
            beside |= FLOW
        other = OTHER.get(key, not default)
        if key == "solver_type":  # names of other classes stand for the default
            other = {"UniPCMultistepScheduler": "bh1", "DEISMultistepScheduler": "euler"}.get(
                name, other
            )
        if name == "EDMDPMSolverMultistepScheduler" and key == "lower_order_final":
            beside = {"solver_order": 3}  # of order 2 the last step alone, which has none
        options = {"tokens": 1000.0} if beside.get("use_dynamic_shifting") else {}
        base = {**plain, **beside}
        try:
            changed = gen.from_diffusers({**base, key: other}, 8, **options)
        except rf.InputError as error:
            assert key in str(error) or str(other) in str(error), (name, key, error)
            continue
        before = gen.from_diffusers({**base, key: default}, 8, **options)
        assert said(changed) != said(before), (name, key)


@pytest.mark.parametrize(
    ("keys", "options", "message"),
    [
        ({}, {}, "no key '_class_name'"),
        ({"_class_name": "MyScheduler"}, {}, "'MyScheduler' is not known"),
        ({"_class_name": "VQDiffusionScheduler"}, {}, "not read here"),
        ({"use_cosine_sigmas": True}, {}, "no key 'use_cosine_sigmas' .*True"),
        ({"beta_schedule": "laplace"}, {}, "beta_schedule='laplace'.*'linear', 'scaled_linear'"),
        ({"beta_start": "0.1"}, {}, "beta_start='0.1'.*between 0 and 1"),
        ({"num_train_timesteps": 1000.0}, {}, "num_train_timesteps=1000.0.*whole"),
        ({"solver_order": True}, {}, "solver_order=True"),
        ({"solver_order": 4}, {}, "solver_order=4.*1, 2 or 3"),
        ({"use_karras_sigmas": 1}, {}, "use_karras_sigmas=1.*true or false"),
        ({"trained_betas": [0.1, 0.2]}, {}, "2 entries, and num_train_timesteps=1000"),
        ({"trained_betas": [0.1] * 999 + [1.2]}, {}, "trained_betas=.*each of them"),
        ({"_use_default_values": "beta_start"}, {}, "list of names"),
        ({**FLOW, "use_dynamic_shifting": True}, {"mu": np.nan}, "mu=nan"),
        ({"use_karras_sigmas": True, "use_beta_sigmas": True}, {}, "contradict"),
        ({"use_karras_sigmas": True, "use_flow_sigmas": True}, {}, "contradict"),
        ({"prediction_type": "flow_prediction"}, {}, "add use_flow_sigmas=True"),
        ({"use_flow_sigmas": True, "prediction_type": "v_prediction"}, {}, "v_prediction'.*flow"),
        ({"use_dynamic_shifting": True}, {}, "add use_flow_sigmas"),
        ({**FLOW, "use_dynamic_shifting": True}, {}, "give either mu, or tokens"),
        (FLOW, {"mu": 1.0}, "leave out mu"),
        ({}, {"eta": 0.5, "scheduler": "DPMSolverMultistepScheduler"}, "no use for eta=0.5"),
        ({"algorithm_type": "dpmsolver"}, {}, "'sigma_min'"),
        ({"algorithm_type": "sde-dpmsolver++", "solver_order": 3}, {}, "curvature"),
        ({"variance_type": "learned_range"}, {}, "variance_type='learned_range'"),
        ({"timestep_spacing": "leading", "steps_offset": 990}, {}, "steps_offset"),
        ({"sigma_max": 1e4, "use_karras_sigmas": True}, {}, "sigma_max=10000.0.*beyond the table"),
        ({"sigma_min": 5.0, "sigma_max": 1.0, "use_karras_sigmas": True}, {}, "do not go down"),
        ({}, {"steps": 0}, "steps must be a positive integer"),
        ({}, {"steps": 5000}, "take fewer steps"),
        ({}, {"shift": 3.0}, "has no key 'shift': leave out"),
    ],
)
def test_refused_by_name(keys, options, message):
    name = {"_class_name": "DPMSolverMultistepScheduler"}
    keys = keys if "_class_name" in message or "_class_name" in keys else {**name, **keys}
    with pytest.raises(rf.InputError, match=message):
        gen.from_diffusers(keys, **{"steps": 10, **options})


@pytest.mark.parametrize(
    ("name", "keys", "message"),
    [
        ("DDIMScheduler", {"set_alpha_to_one": False}, "set_alpha_to_one=False.*no size"),
        ("EulerDiscreteScheduler", {"rescale_betas_zero_snr": True}, "do not go down"),
        ("DDIMScheduler", {"clip_sample": False, "rescale_betas_zero_snr": True}, "'epsilon'"),
        ("DDPMScheduler", {"variance_type": "fixed_large_log"}, "fixed_large_log"),
        ("DDPMScheduler", {"variance_type": "fixed_large", "steps_offset": 1}, "not 0"),
        ("EulerDiscreteScheduler", {"interpolation_type": "log_linear"}, "log_linear"),
        ("EulerAncestralDiscreteScheduler", {"prediction_type": "sample"}, "'sample'"),
        ("UniPCMultistepScheduler", {"predict_x0": False}, "predict_x0=False"),
        ("UniPCMultistepScheduler", {"disable_corrector": [0]}, r"disable_corrector=\[0\]"),
        ("UniPCMultistepScheduler", {**SIGMAS, "final_sigmas_type": "sigma_min"}, "no size"),
        ("DPMSolverSinglestepScheduler", {"solver_order": 2, "algorithm_type": "dpmsolver",
          "final_sigmas_type": "sigma_min", "lower_order_final": True}, r"take 11 steps"),
        ("DPMSolverSinglestepScheduler", {"solver_order": 3}, "second stage"),
        ("DPMSolverSinglestepScheduler", {"solver_order": 3, "solver_type": "heun"}, "take 11"),
        ("DEISMultistepScheduler", {**SIGMAS, "solver_order": 3}, "solver_order=2"),
        ("FlowMatchEulerDiscreteScheduler", {"stochastic_sampling": True}, "stochastic"),
        ("FlowMatchEulerDiscreteScheduler", {"invert_sigmas": True}, "invert_sigmas=True"),
        ("EDMEulerScheduler", {"prediction_type": "sample"}, "'sample'"),
        ("DDPMScheduler", {"variance_type": "learned"}, "'learned'.*not here"),
        ("DDPMScheduler", {"variance_type": "learned_range", "steps_offset": 1}, "not 0"),
        ("KDPM2DiscreteScheduler", {"prediction_type": "sample"}, "'sample'"),
        ("LMSDiscreteScheduler", {**SIGMAS, "sigma_min": 0.1}, "sigma_min=0.1.*leave it out"),
        ("DPMSolverSDEScheduler", {"noise_sampler_seed": 3}, "noise_sampler_seed=3.*key="),
        ("PNDMScheduler", {"prediction_type": "sample"}, "'sample'"),
        ("PNDMScheduler", {"trained_betas": [0.01] * 2, "num_train_timesteps": 2}, "fewer steps"),
        ("LCMScheduler", {"original_inference_steps": 8}, "at least steps=10"),
        ("LCMScheduler", {"original_inference_steps": 1001}, "at most num_train_timesteps"),
        ("TCDScheduler", {"original_inference_steps": 10, "num_train_timesteps": 10}, "no size"),
        ("SASolverScheduler", SIGMAS, "use_karras_sigmas=True.*corrected once more"),
        ("SASolverScheduler", {"algorithm_type": "noise_prediction"}, "'data_prediction'"),
        ("SASolverScheduler", {"corrector_order": 0}, "corrector_order=0"),
        ("SASolverScheduler", {"predictor_order": 4}, "predictor_order=4"),
        ("SASolverScheduler", {"tau_func": 0.5}, "tau_func=0.5.*function"),
        ("SASolverScheduler", {"timestep_spacing": "trailing", "num_train_timesteps": 10},
         "no size"),
    ],
)  # fmt: skip
def test_what_a_class_does_otherwise_is_refused(name, keys, message):
    with pytest.raises(rf.InputError, match=message):
        gen.from_diffusers({"_class_name": name, **keys}, 10)


def test_a_setup_says_what_it_is_in_ten_lines():
    with pytest.warns(UserWarning, match="linspace"):
        told = str(gen.from_diffusers({"_class_name": "DDIMScheduler", "solver_order": 2,
                                       "timestep_spacing": "linspace"}, 25))  # fmt: skip
    assert told.startswith("DDIMScheduler of diffusers\n") and len(told.splitlines()) <= 12
    for said in ("DiscreteBetas", "noise", "25 steps from t = 1 to 0", "solver_order", "linspace"):
        assert said in told
    assert "4 steps" in repr(gen.from_diffusers({"_class_name": "LCMScheduler"}, 4))


def test_pndm_needs_four_steps_of_some_size():
    with pytest.raises(rf.InputError, match="there are 3: take more, or skip_prk_steps=True"):
        gen.from_diffusers({"_class_name": "PNDMScheduler"}, 4)


def test_options_of_a_step_and_labels_in_single_precision():
    name = {"_class_name": "TCDScheduler"}
    assert gen.from_diffusers(name, 4).sampler == gen.TCD(eta=0.3)
    assert gen.from_diffusers(name, 4, eta=0.0).sampler == gen.TCD(eta=0.0)
    with pytest.raises(rf.InputError, match=r"no use for eta=0\.5"):
        gen.from_diffusers({"_class_name": "LCMScheduler"}, 4, eta=0.5)
    keys = {"_class_name": "SASolverScheduler", "tau_func": lambda label: label / 1000}
    solver = gen.from_diffusers(keys, 5)
    tau = [solver.sampler.tau(t) for t in solver.times[:-1]]
    np.testing.assert_allclose(tau, np.asarray(solver.labels) / 1000, rtol=1e-12)
    setup = gen.from_diffusers({"_class_name": "KDPM2DiscreteScheduler", **SIGMAS}, 40)
    single = setup.time(jnp.asarray(setup.times[:-1], jnp.float32))
    np.testing.assert_array_equal(single, np.round(setup.labels))


def test_files(tmp_path):
    keys = {"_class_name": "EulerDiscreteScheduler", "_diffusers_version": "0.42.0"}
    # As in the files of models whose scheduler was made from that of another class.
    left = {"clip_sample": False, "set_alpha_to_one": False, "skip_prk_steps": True}
    folder = tmp_path / "scheduler"
    folder.mkdir()
    file = folder / "scheduler_config.json"
    file.write_text(json.dumps({**keys, **left, "lambda_min_clipped": -np.inf}))
    for source in (file, str(folder), tmp_path):
        setup = gen.from_diffusers(source, 7)
        assert setup.name == "EulerDiscreteScheduler" and len(setup.times) == 8
        assert setup.unused == {**left, "lambda_min_clipped": -np.inf}
    other = gen.from_diffusers(
        file, 7, scheduler="DPMSolverMultistepScheduler", use_karras_sigmas=True
    )
    assert other.sampler == gen.DPMSolverPlusPlus(2, lower_order_final=True)
    # Defaults of the class that wrote the file are not handed on to another.
    keys = {"_class_name": "HeunDiscreteScheduler", "beta_start": 0.1, "clip_sample": False}
    written = gen.from_diffusers({**keys, "_use_default_values": ["beta_start"]}, 7)
    assert said(written) == said(gen.from_diffusers({**keys, "beta_start": 0.00085}, 7))

    for text, message in [
        ('{"_class_name": "DDIM', r"scheduler_config.json is not valid JSON, line 1"),
        ("[1, 2]", "one object"),
        ("", "Is the file complete"),
    ]:
        file.write_text(text)
        with pytest.raises(rf.InputError, match=message):
            gen.from_diffusers(file, 7)
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(rf.InputError, match="cannot be read as text"):
        gen.from_diffusers(file, 7)
    with pytest.raises(rf.InputError, match="There is no file"):
        gen.from_diffusers(tmp_path / "none.json", 7)
    with pytest.raises(rf.InputError, match="holds no scheduler_config"):
        gen.from_diffusers(tmp_path.parent, 7)
    with pytest.raises(rf.InputError, match="path"):
        gen.from_diffusers(3, 7)


def test_evaluations_and_precision_and_derivative():
    heun = gen.from_diffusers({"_class_name": "HeunDiscreteScheduler"}, 5)
    solver = gen.from_diffusers(
        {"_class_name": "DPMSolverSinglestepScheduler", "solver_type": "heun", "solver_order": 3}, 6
    )
    for setup, evaluations in ((heun, 9), (solver, 6)):
        denoiser = setup.denoiser(lambda x, t: network(jnp, x, t))
        x = jnp.asarray(START, jnp.float32)

        def call(x, denoiser=denoiser, setup=setup):
            return gen.sample(denoiser, start=x, **setup.sampling, full=True)

        found = jax.jit(call)(x)
        assert found.evaluations == evaluations and found.value.dtype == jnp.float32
        double = call(jnp.asarray(START))
        np.testing.assert_allclose(found.value, double.value, rtol=1e-3, atol=3e-4)
        slope = jax.jit(jax.jvp, static_argnums=0)(
            lambda x: call(x).value, (jnp.asarray(START),), (jnp.ones(SHAPE),)
        )[1]
        ahead, behind = (call(jnp.asarray(START) + h).value for h in (1e-5, -1e-5))
        np.testing.assert_allclose(slope, (ahead - behind) / 2e-5, rtol=1e-5, atol=1e-5)


def test_every_key_of_another_scheduler_is_one_of_diffusers():
    schedulers = pytest.importorskip("diffusers").schedulers
    # Of two that cannot be imported, and of one that needs torchsde.
    taken = {*NOTES, "beta_min", "beta_max", "s_churn", "s_max", "s_min", "noise_sampler_seed"}
    for name in dir(schedulers):
        if name.endswith("Scheduler") and hasattr(schedulers, name):
            taken |= set(inspect.signature(getattr(schedulers, name).__init__).parameters)
    assert taken >= ELSEWHERE
