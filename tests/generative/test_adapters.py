"""Models of other libraries as the model of a `Denoiser`."""

import contextlib
import dataclasses
import sys
import types
import typing

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf
from rootflow import generative as gen
from rootflow.generative import adapters

from .problems import START, VP

X = START[:6]
T = jnp.linspace(0.1, 0.9, 6)


class OneSample(eqx.Module):
    layer: eqx.nn.Linear
    drop: eqx.nn.Dropout

    def __call__(self, x, t, condition=None):
        out = self.drop(self.layer(x)) * t
        return out if condition is None else out + condition["shift"] * condition["one"]


def test_an_equinox_module_of_one_sample():
    module = OneSample(eqx.nn.Linear(2, 2, key=jax.random.key(0)), eqx.nn.Dropout(0.5))
    denoiser = gen.Denoiser(gen.from_equinox(module), VP)
    by_hand = (X @ module.layer.weight.T + module.layer.bias) * T[:, None]
    np.testing.assert_allclose(denoiser.noise(X, T), by_hand, rtol=1e-12)
    condition = {"shift": X, "one": jnp.ones(2)}
    np.testing.assert_allclose(denoiser.noise(X, T, condition), by_hand + X, rtol=1e-12)
    slope = eqx.filter_grad(lambda d: jnp.sum(d.noise(X, 0.5)))(denoiser)
    assert jnp.abs(slope.model.module.layer.weight).max() > 0


class Linen:
    """What `from_flax` sees of a Linen module."""

    def apply(self, variables, x, t, condition=None, *, train):
        assert not train and t.shape == x.shape[:1]
        return x @ variables["params"]["kernel"] * t[:, None]


def test_a_flax_module_by_its_apply_function():
    variables = {"params": {"kernel": jnp.array([[1.0, 2.0], [0.0, 1.0]])}}
    for module in (Linen(), Linen().apply):
        denoiser = gen.Denoiser(gen.from_flax(module, variables, train=False), VP)
        expected = X @ variables["params"]["kernel"] * 0.3
        np.testing.assert_allclose(denoiser.noise(X, 0.3), expected, rtol=1e-12)
    slope = jax.grad(
        lambda v: jnp.sum(gen.Denoiser(gen.from_flax(Linen(), v, train=False), VP).noise(X, 0.3))
    )(variables)
    np.testing.assert_allclose(
        slope["params"]["kernel"], jnp.tile(0.3 * X.sum(0)[:, None], (1, 2)), rtol=1e-10
    )


def test_flax_itself():
    pytest.importorskip("flax")
    from flax import linen, nnx

    class Dense(linen.Module):
        @linen.compact
        def __call__(self, x, t):
            return linen.Dense(2)(x) * t[:, None]

    variables = Dense().init(jax.random.key(0), X, T)
    kernel, bias = (variables["params"]["Dense_0"][k] for k in ("kernel", "bias"))
    found = gen.Denoiser(gen.from_flax(Dense(), variables), VP).noise(X, T)
    np.testing.assert_allclose(found, (X @ kernel + bias) * T[:, None], rtol=1e-5)

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.layer = nnx.Linear(2, 2, rngs=rngs)

        def __call__(self, x, t):
            return self.layer(x) * t[:, None]

    net = Net(nnx.Rngs(0))
    denoiser = gen.Denoiser(gen.from_flax(*nnx.split(net)), VP)
    np.testing.assert_allclose(denoiser.noise(X, T), net(X, T), rtol=1e-5)
    assert gen.sample(denoiser, start=X, steps=3).shape == X.shape
    with pytest.raises(rf.InputError, match=r"nnx.split"):
        gen.from_flax(net, None)


@pytest.fixture(scope="module")
def torch_and_twin():
    """A PyTorch network in double precision, and the same in JAX."""
    torch = pytest.importorskip("torch")

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(3, 2, dtype=torch.float64)

        def forward(self, x, t, condition=None):
            out = torch.tanh(self.layer(torch.cat([x, t[:, None]], 1)))
            return out if condition is None else out + condition["shift"] * condition["kind"]

    net = Net()
    weight, bias = (jnp.asarray(p.detach().numpy()) for p in (net.layer.weight, net.layer.bias))

    def twin(x, t, condition=None):
        t = jnp.broadcast_to(t, x.shape[:1])[:, None]
        out = jnp.tanh(jnp.concatenate([x, t], axis=1) @ weight.T + bias)
        return out if condition is None else out + condition["shift"] * condition["kind"]

    return gen.from_torch(net), twin


def test_a_torch_module_is_the_same_function(torch_and_twin):
    model, twin = torch_and_twin
    condition = {"shift": X, "kind": jnp.arange(6)[:, None]}
    for call in (lambda f: f(X, T), lambda f: f(X, 0.3), lambda f: f(X, T, condition)):
        np.testing.assert_allclose(call(model), call(twin), rtol=1e-12)
        np.testing.assert_allclose(jax.jit(lambda c=call: c(model))(), call(twin), rtol=1e-12)


def test_a_torch_module_is_sampled_and_differentiated(torch_and_twin):
    model, twin = torch_and_twin

    def through(f, gradient):
        denoiser = gen.Denoiser(f, VP, "data")
        options = {"sampler": gen.BDIA(), "steps": 5, "gradient": gradient}
        return jax.grad(lambda x: jnp.sum(gen.sample(denoiser, start=x, **options) ** 2))(X)

    for gradient in ("direct", "reversible"):
        np.testing.assert_allclose(through(model, gradient), through(twin, gradient), rtol=1e-9)
    shift = jax.grad(
        lambda s: jnp.sum(jnp.sin(model(X, T, {"shift": s, "kind": jnp.arange(6)[:, None]})))
    )
    assert jnp.isfinite(shift(X)).all()
    # Forward mode, also inside a compiled function.
    for wrap in (lambda f: f, jax.jit):
        pushed = [
            jax.jvp(wrap(lambda x, f=f: f(x, 0.2)), (X,), (jnp.cos(X),))[1] for f in (model, twin)
        ]
        np.testing.assert_allclose(*pushed, rtol=1e-9)
    many = jax.vmap(lambda x: model(x[None], 0.2)[0])(X)
    np.testing.assert_allclose(many, twin(X, 0.2), rtol=1e-12)
    slopes = [jax.vmap(jax.grad(lambda x, f=f: jnp.sum(f(x[None], 0.2))))(X) for f in (model, twin)]
    np.testing.assert_allclose(*slopes, rtol=1e-12)


class HostModel(adapters._Torch):
    """tanh(x W + t): the calls out of the compiled program without PyTorch at their end."""

    def _try(self, inputs):
        return inputs[0].shape

    def _forward(self, x, t):
        return np.tanh(np.asarray(x) @ WEIGHT + np.asarray(t)[:, None])

    def _push(self, inputs, which, tangents):
        given = dict(zip(which, map(np.asarray, tangents)))
        inner = given.get(0, np.zeros_like(inputs[0])) @ WEIGHT
        inner = inner + given.get(1, np.zeros_like(inputs[1]))[:, None]
        return (1 - self._forward(*inputs) ** 2) * inner

    def _pull(self, inputs, which, cotangent):
        inner = (1 - self._forward(*inputs) ** 2) * np.asarray(cotangent)
        return [(inner @ WEIGHT.T, inner.sum(1))[i] for i in which]


WEIGHT = np.array([[0.6, -0.4], [0.3, 0.8]])
HOST = HostModel(None, None)


def host_twin(x, t):
    return jnp.tanh(x @ WEIGHT + jnp.broadcast_to(t, x.shape[:1])[:, None])


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_derivatives_of_a_model_outside_the_program_under_vmap(wrap):
    found, expected = [], []
    for f, out in ((HOST, found), (host_twin, expected)):
        squares = lambda x, t, f=f: jnp.sum(f(x[None], t) ** 2)
        push = lambda x, v, f=f: jax.jvp(lambda x: f(x[None], 0.3), (x,), (v,))[1]
        out.append(wrap(jax.vmap(jax.grad(squares, argnums=(0, 1))))(X, T))
        out.append(wrap(jax.vmap(push))(X, jnp.cos(X)))
        # The time is the same for all members: its slope is their sum.
        total = lambda x, t, g=squares: jnp.sum(jax.vmap(g, in_axes=(0, None))(x, t))
        out.append(wrap(jax.grad(total, argnums=1))(X, 0.3))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_the_likelihood_under_a_model_outside_the_program():
    options = {"rtol": 1e-4, "atol": 1e-4}  # the default method is explicit
    found, expected = (
        gen.log_likelihood(gen.Denoiser(f, VP, "data"), X, **options) for f in (HOST, host_twin)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_a_second_derivative_of_a_model_outside_the_program_is_refused():
    slope = jax.grad(lambda x: jnp.sum(HOST(x, 0.3) ** 2))
    with pytest.raises(rf.DerivativeError, match="second one in PyTorch"):
        jax.jvp(slope, (X,), (X,))
    # A method that may turn implicit wants the derivative of the divergence.
    with pytest.raises(rf.DerivativeError, match=r"rf\.Tsit5"):
        gen.log_likelihood(gen.Denoiser(HOST, VP, "data"), X, method="auto")


class Tensor:
    """As much of a tensor of PyTorch as the adapter asks for, on NumPy."""

    def __init__(self, array, device="cpu"):
        self.array, self.device = np.asarray(array), device

    dtype = property(lambda self: self.array.dtype)
    shape = property(lambda self: self.array.shape)

    def to(self, what):
        if isinstance(what, str):
            return Tensor(self.array, what)
        return Tensor(self.array.astype(what), self.device)

    def clone(self):
        return Tensor(self.array.copy(), self.device)

    def is_floating_point(self):
        return jnp.issubdtype(self.dtype, jnp.floating)

    def float(self):
        return self.to(np.float32)

    def detach(self):
        return self

    def cpu(self):
        return Tensor(self.array)

    def numpy(self):
        if self.device != "cpu":
            raise TypeError(f"can't convert {self.device} device type tensor to numpy")
        if self.dtype == jnp.bfloat16:
            raise TypeError("Got unsupported ScalarType BFloat16")
        return self.array


class Half:
    """A module of bfloat16, as strict about types as PyTorch is; what it has seen is kept."""

    def __init__(self, out=lambda tensor: tensor, device="cpu", trained=True):
        self.out, self.seen, self.device, self.trained = out, [], device, trained

    def parameters(self):
        return iter([Tensor(np.zeros(1, jnp.bfloat16), self.device)] if self.trained else [])

    def buffers(self):
        return iter([Tensor(np.zeros(1, jnp.bfloat16), self.device)])

    def eval(self):
        return self

    def __call__(self, x, t):
        self.seen.append((x.dtype, t))
        if x.dtype != jnp.bfloat16:
            raise RuntimeError("mat1 and mat2 must have the same dtype\nand more of it")
        if not x.device == t.device == self.device:
            raise RuntimeError("Expected all tensors to be on the same device")
        half = np.asarray(x.array, np.float32) * 0.5
        return self.out(Tensor(half.astype(x.dtype), x.device))


@pytest.fixture
def bare_torch(monkeypatch):
    torch = types.SimpleNamespace(
        float16=np.dtype(np.float16), float32=np.dtype(np.float32), bfloat16=jnp.dtype("bfloat16"),
        no_grad=contextlib.nullcontext, is_tensor=lambda a: isinstance(a, Tensor),
        from_dlpack=Tensor, tensor=Tensor, get_default_dtype=lambda: np.dtype(np.float32),
        nn=types.SimpleNamespace(Module=Half),
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "torch", torch)
    return torch


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["eager", "jit"])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_module_of_half_precision_is_told_whole_labels(bare_torch, wrap, dtype):
    module = Half()
    x = jnp.full((3, 2), 1.25, dtype)
    found = wrap(lambda t: gen.from_torch(module)(x, t))(jnp.asarray(999.0))
    assert found.dtype == dtype
    np.testing.assert_array_equal(np.asarray(found, np.float32), 0.625)
    kind, label = module.seen[-1]
    assert kind == jnp.bfloat16
    np.testing.assert_array_equal(label.array, np.full(3, 999.0))


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["eager", "jit"])
@pytest.mark.parametrize("trained", [True, False])
def test_a_module_on_another_device(bare_torch, wrap, trained):
    """Inputs go where it is, also where only its buffers say so, and its output comes back."""
    bare_torch.get_default_dtype = lambda: jnp.dtype("bfloat16")
    model = gen.from_torch(Half(device="cuda:1", trained=trained))
    found = wrap(lambda x: model(x, 1.0))(jnp.full((3, 2), 1.25, jnp.float32))
    np.testing.assert_array_equal(found, 0.625)


def test_labels_of_other_models_are_whole_too():
    seen = lambda x, t: jnp.zeros_like(x) + (t == 999.0)
    model = gen.from_equinox(seen)
    np.testing.assert_array_equal(model(jnp.zeros((2, 3), jnp.bfloat16), 999.0), 1.0)


@dataclasses.dataclass
class Output:
    prediction: object
    note: str = "not a tensor"


class Pair(typing.NamedTuple):
    mean: object
    deviation: object


def test_what_a_torch_module_may_return(bare_torch):
    x = jnp.ones((3, 2), jnp.float32)
    run = lambda out, **options: jax.jit(gen.from_torch(Half(out), **options))(x, jnp.float32(1.0))
    twice = lambda a: Tensor(2 * a.array)
    for out in (
        lambda a: types.SimpleNamespace(sample=a, other=twice(a)),
        lambda a: {"sample": a, "other": twice(a)},
        lambda a: {"prediction": a},
        lambda a: (a,),
        lambda a: (a, None),
        lambda a: [a, 3],
        Output,
    ):
        np.testing.assert_array_equal(run(out), 0.5)
    two = lambda a: {"mean": a, "deviation": twice(a)}
    for output in ("deviation", lambda out: out["deviation"]):
        np.testing.assert_array_equal(run(two, output=output), 1.0)
    np.testing.assert_array_equal(run(lambda a: (a, twice(a)), output=1), 1.0)
    np.testing.assert_array_equal(run(lambda a: Pair(a, twice(a)), output="deviation"), 1.0)
    for out, options, message in (
        (
            two,
            {},
            "returned dict, which is neither a tensor.*2: say which by output= one of 'mean'",
        ),
        (lambda a: None, {}, "returned NoneType, which is neither a tensor"),
        (two, {"output": "sample"}, "has no tensor 'sample'; its tensors are 'mean', 'deviation'"),
        (two, {"output": len}, "output= made int of what Half returned"),
        (lambda a: Tensor(a.array[:, 0]), {}, r"shape \(3, 2\); got \(3,\)"),
    ):
        with pytest.raises(rf.InputError, match=message):
            run(out, **options)


def test_a_torch_module_may_return_a_variance_beside_its_prediction():
    torch = pytest.importorskip("torch")

    class Wide(torch.nn.Module):
        def forward(self, x, t):
            return torch.cat([0.5 * x, torch.ones_like(x)], 1)

    model = gen.from_torch(Wide())
    learned = gen.Denoiser(model, gen.VPLinear(), variance_axis=1)
    options = dict(start=jnp.ones((3, 2)), key=jax.random.key(0), steps=2)
    found = gen.sample(learned, sampler=gen.DDPM("learned_range"), **options)
    plain = gen.Denoiser(lambda x, t: 0.5 * x, gen.VPLinear())
    expected = gen.sample(plain, sampler=gen.DDPM("large"), **options)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_an_error_in_a_torch_module_names_it_in_a_line(bare_torch):
    def fails(out):
        raise ValueError("no such layer\nsecond line")

    with pytest.raises(rf.InputError, match=r"PyTorch module Half failed.*no such layer") as caught:
        jax.jit(gen.from_torch(Half(fails)))(jnp.ones((3, 2)), jnp.asarray(1.0))
    said = str(caught.value)
    assert "t.to(x.dtype)" in said and "second line" not in said and len(said) < 400


def test_torch_is_asked_for_only_by_its_adapter(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(rf.InputError, match="pip install torch"):
        gen.from_torch(object())


def test_what_cannot_be_wrapped():
    with pytest.raises(rf.InputError, match="can be called"):
        gen.from_equinox(3)
    with pytest.raises(rf.InputError, match="apply function"):
        gen.from_flax(3, {})
    pytest.importorskip("torch")
    with pytest.raises(rf.InputError, match=r"torch\.nn\.Module; got function"):
        gen.from_torch(lambda x, t: x)


@pytest.fixture(scope="module")
def attention():
    """A PyTorch module with fused attention, which alone has a first derivative only."""
    torch = pytest.importorskip("torch")

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.keys = torch.nn.Linear(4, 4)

        def forward(self, x, t):
            k = self.keys(x) + t[:, None, None].to(x.dtype)
            return torch.nn.functional.scaled_dot_product_attention(x, k, k)

    torch.manual_seed(0)
    return Net()


def by_formula(net, x, t):
    weight, bias = (jnp.asarray(p.detach().float().numpy()) for p in net.keys.parameters())
    k = x @ weight.T + bias + t
    return jax.nn.softmax(x @ k.swapaxes(1, 2) / 2, axis=-1) @ k


@pytest.mark.parametrize("compiled", [False, True])
def test_attention_and_compiled_modules_in_both_directions(attention, compiled):
    torch = pytest.importorskip("torch")
    x = jax.random.normal(jax.random.key(0), (2, 3, 4), jnp.float32)
    model = gen.from_torch(torch.compile(attention, backend="aot_eager") if compiled else attention)
    exact = lambda x: by_formula(attention, x, 0.5)
    ours = lambda x: model(x, 0.5)
    for wrap in (lambda f: f, jax.jit):
        np.testing.assert_allclose(wrap(ours)(x), exact(x), rtol=1e-5, atol=1e-6)
    slopes = [jax.grad(lambda x, f=f: jnp.sum(f(x) ** 2))(x) for f in (ours, exact)]
    np.testing.assert_allclose(*slopes, rtol=1e-4, atol=1e-5)
    pushed = [jax.jvp(f, (x,), (jnp.cos(x),))[1] for f in (ours, exact)]
    np.testing.assert_allclose(*pushed, rtol=1e-4, atol=1e-5)


def test_a_real_module_of_half_precision_and_one_without_values(attention):
    torch = pytest.importorskip("torch")
    import copy

    half = gen.from_torch(copy.deepcopy(attention).to(torch.bfloat16))
    x = jax.random.normal(jax.random.key(0), (2, 3, 4), jnp.float32)
    for dtype in (jnp.float32, jnp.bfloat16):
        found = jax.jit(half)(x.astype(dtype), 0.5)
        assert found.dtype == dtype
        np.testing.assert_allclose(
            np.asarray(found, np.float32), by_formula(attention, x, 0.5), atol=0.05
        )
    with pytest.raises(rf.InputError, match="on the device meta"):
        gen.from_torch(torch.nn.Linear(2, 2, device="meta"))


def test_an_unet_of_diffusers():
    """It returns an object with the tensor in `sample`, and has fused attention."""
    torch = pytest.importorskip("torch")
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    net = diffusers.UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, layers_per_block=1, norm_num_groups=4,
        block_out_channels=(8, 8), down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"), attention_head_dim=4,
    )  # fmt: skip
    x = jax.random.normal(jax.random.key(0), (2, 1, 8, 8), jnp.float32)
    model = gen.from_torch(net)
    with torch.no_grad():
        expected = net(torch.from_numpy(np.array(x)), torch.tensor([3.0, 3.0])).sample.numpy()
    np.testing.assert_allclose(jax.jit(model)(x, 3.0), expected, rtol=1e-5, atol=1e-6)
    f = lambda x: model(x, 3.0)
    h = 1e-2
    slope = (f(x + h * x) - f(x - h * x)) / (2 * h)
    np.testing.assert_allclose(jax.jvp(f, (x,), (x,))[1], slope, atol=2e-3)
