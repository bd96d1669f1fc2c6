"""Files of numbers: our own, and weights that other packages wrote."""

import json
import os
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf
from rootflow.training import metadata, read_weights


class Network(eqx.Module):
    conv: eqx.nn.Conv1d
    head: eqx.nn.Linear
    rate: float

    def __init__(self):
        key = jax.random.key(0)
        self.conv = eqx.nn.Conv1d(2, 3, 1, key=key, dtype=jnp.float32)
        self.head = eqx.nn.Linear(3, 3, key=key, dtype=jnp.float32)
        self.rate = 0.25

    def __call__(self, x):
        return self.head(self.conv(x)[:, 0])


RANDOM = np.random.default_rng(0)
#: As `state_dict` of torch.nn.Sequential(Conv1d(2, 3, 1), BatchNorm1d..., Linear(3, 3)) names them.
THEIRS = {
    "0.weight": RANDOM.normal(size=(3, 2, 1)).astype(np.float32),
    "0.bias": RANDOM.normal(size=3).astype(np.float32),
    "1.num_batches_tracked": np.array(7),
    "2.weight": RANDOM.normal(size=(3, 3)).astype(np.float32),
    "2.bias": RANDOM.normal(size=3).astype(np.float32),
}
NAMES = {
    "0.weight": "conv.weight",
    "0.bias": "conv.bias",
    "1.num_batches_tracked": None,
    "2.weight": "head.weight",
    "2.bias": "head.bias",
}


def by_hand(weights, x):
    hidden = weights["0.weight"][:, :, 0] @ x[:, 0] + weights["0.bias"]
    return weights["2.weight"] @ hidden + weights["2.bias"]


X = np.array([[0.5], [-1.25]], np.float32)


@pytest.fixture
def file(tmp_path):
    """A file as another package writes it."""
    numpy = pytest.importorskip("safetensors.numpy")
    path = tmp_path / "theirs.safetensors"
    numpy.save_file(THEIRS, path, metadata={"format": "pt"})
    return path


def test_a_tree_in_a_safetensors_file_comes_back_and_others_can_read_it(tmp_path):
    numpy = pytest.importorskip("safetensors.numpy")
    tree = {
        "net": Network(),
        "half": jnp.arange(3, dtype=jnp.bfloat16),
        "tiny": jnp.ones(2, jnp.int4),
        "complex": jnp.array([[1 + 2j, 3], [0, -1j]]),
        "alone": jnp.asarray(2 - 1j),
        "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "swapped": np.arange(3.0).astype(">f8"),
        "key": jax.random.key(7),
        "numbers": [1, 2.5, True, 1 + 2j],
        "none": np.zeros((0, 2)),
        "text": "kept from the tree that is given",
    }
    path = tmp_path / "tree.safetensors"
    rf.save(path, tree, note="hello", sizes=[1, 2])
    back = rf.load(path, jax.tree.map(lambda x: x, tree))
    assert eqx.tree_equal(tree, back, typematch=True)
    assert back["swapped"].dtype == ">f8"
    np.testing.assert_array_equal(back["columns"], tree["columns"])
    assert metadata(path) == {"note": "hello", "sizes": [1, 2]}
    # The format: eight bytes of length, a JSON header, the numbers.
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert header["half"]["dtype"] == "BF16" and header["net.conv.weight"]["shape"] == [3, 2, 1]
    rf.save(path, {"net": Network(), "columns": tree["columns"]})
    read = numpy.load_file(path)
    assert set(read) == {
        "columns", "net.conv.weight", "net.conv.bias", "net.head.weight", "net.head.bias",
        "net.rate",
    }  # fmt: skip
    np.testing.assert_array_equal(read["columns"], tree["columns"])


def test_a_file_of_ours_is_checked_in_every_leaf(tmp_path):
    pytest.importorskip("safetensors")
    path = tmp_path / "tree.safetensors"
    rf.save(path, {"a": jnp.zeros(2), "b": 1})
    for like, message in (
        ({"a": jnp.zeros(2), "b": 1, "c": 2.0}, "lacks 'c'"),
        ({"a": jnp.zeros(2)}, "has 'b', which the tree lacks"),
        ({"a": jnp.zeros((2, 1)), "b": 1}, r"'a' has shape \(2,\).*\(2, 1\)"),
        ({"a": jnp.zeros(2, jnp.float32), "b": 1}, "'a' has type float64.*float32"),
        ({"a": jnp.zeros(2), "b": 1.5}, "'b' has the type"),
    ):
        with pytest.raises(rf.InputError, match=message):
            rf.load(path, like)
    whole = path.read_bytes()
    for content in (b"", b"nonsense", whole[:-3], whole[:20], whole + b"x"):
        path.write_bytes(content)
        with pytest.raises(rf.InputError, match="not a whole safetensors file"):
            rf.load(path, {"a": jnp.zeros(2), "b": 1})


def test_what_cannot_be_written_leaves_the_old_file(tmp_path, monkeypatch):
    pytest.importorskip("safetensors")
    path = tmp_path / "tree.safetensors"
    rf.save(path, {"a": jnp.zeros(2)})

    def full(*_):
        raise OSError("no space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", full)
        with pytest.raises(OSError, match="no space"):
            rf.save(path, {"a": jnp.ones(2)})
    assert rf.load(path, {"a": jnp.ones(2)})["a"].sum() == 0
    assert [p.name for p in tmp_path.iterdir()] == ["tree.safetensors"]
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    for call in (lambda: rf.save(path, {"a": 1}), lambda: rf.load(path, {"a": jnp.ones(2)})):
        with pytest.raises(rf.InputError, match=r"rootflow\[safetensors\]"):
            call()


def test_weights_of_others_go_where_they_are_sent(file):
    function = lambda name: NAMES[name]
    for names in (NAMES, function):
        found = rf.load(file, Network(), names=names)
        np.testing.assert_allclose(found(X), by_hand(THEIRS, X), rtol=1e-6)
        assert found.rate == 0.25
    turned = rf.load(file, Network(), names=NAMES, transpose={"head.weight": (1, 0)})
    np.testing.assert_array_equal(turned.head.weight, THEIRS["2.weight"].T)
    axes = lambda name: (1, 0) if name == "head.weight" else None
    assert eqx.tree_equal(rf.load(file, Network(), names=NAMES, transpose=axes), turned)
    assert metadata(file) == {"format": "pt"}
    # Read, changed by hand, and put in.
    weights = read_weights(file)
    assert set(weights) == {"0", "1", "2"} and weights["1"]["num_batches_tracked"] == 7
    weights["2"]["weight"] = -weights["2"]["weight"]
    flipped = rf.load(weights, Network(), names=NAMES)
    np.testing.assert_array_equal(flipped.head.weight, -THEIRS["2.weight"])


def test_weights_are_cast_where_every_number_has_a_place(file):
    wide = jax.tree.map(lambda x: x.astype(float) if eqx.is_array(x) else x, Network())
    with pytest.raises(rf.InputError, match=r"'conv.weight' has type float32.*float64.*cast=True"):
        rf.load(file, wide, names=NAMES)
    found = rf.load(file, wide, names=NAMES, cast=True)
    assert found.head.weight.dtype == jnp.float64
    np.testing.assert_array_equal(found.head.weight, THEIRS["2.weight"])
    half = {"a": jnp.zeros(2, jnp.bfloat16)}
    near = rf.load({"a": np.array([1.0, 1.0 + 2**-7])}, half, cast=True)["a"]
    np.testing.assert_array_equal(np.asarray(near, float), [1.0, 1.0078125])
    for given, like, message in (
        (np.array([1.0, 7e4]), np.zeros(2, np.float16), "70000.0, which is too large for float16"),
        (np.array([1, 300]), np.zeros(2, np.uint8), "300, which is too large for uint8"),
        (np.array([1.5]), np.zeros(1, int), "cannot be cast to int"),
    ):
        with pytest.raises(rf.InputError, match=message):
            rf.load({"a": given}, {"a": like}, cast=True)


@pytest.mark.parametrize(
    "options, message",
    [
        ({}, "lacks 'conv.weight' and has '0.bias', which the tree lacks.*names="),
        ({"names": {"0.wieght": "conv.weight"}}, r"no '0.wieght'.*'0.weight'"),
        ({"names": lambda name: "same"}, "would both be 'same'"),
        ({"names": lambda name: 3}, "is 3; give text, or None"),
        ({"names": NAMES, "transpose": {"head.wight": (1, 0)}}, "tree has no 'head.wight'"),
        ({"names": NAMES, "transpose": {"head.weight": (0, 2)}}, r"\(3, 3\).*\(0, 2\)"),
        ({"names": NAMES, "transpose": {"conv.weight": (1, 0, 2)}},
         r"'conv.weight' has shape \(2, 3, 1\) in the file and \(3, 2, 1\)"),
    ],
)  # fmt: skip
def test_weights_that_do_not_fit(file, options, message):
    with pytest.raises(rf.InputError, match=message):
        rf.load(file, Network(), **options)


def test_what_is_no_file_of_weights(tmp_path):
    with pytest.raises(rf.InputError, match="there is no file"):
        read_weights(tmp_path / "none.safetensors")
    pickled = tmp_path / "model.pt"
    pickled.write_bytes(b"")
    with pytest.raises(rf.InputError, match=r"is a pickle by its name.*safetensors\.torch"):
        rf.load(pickled, Network())
    with pytest.raises(rf.InputError, match="lies within an array"):
        rf.save(tmp_path / "a.npz", {"a": 1, "a.b": 2})
        read_weights(tmp_path / "a.npz")
    rf.save(tmp_path / "b.npz", {"a": [jnp.ones(2), 3]})
    assert read_weights(tmp_path / "b.npz")["a"]["1"] == 3


def test_a_model_in_several_files(tmp_path):
    numpy = pytest.importorskip("safetensors.numpy")
    index = tmp_path / "model.safetensors.index.json"
    homes = {name: f"part-{name[0]}.safetensors" for name in THEIRS}
    for part in set(homes.values()):
        numpy.save_file({n: a for n, a in THEIRS.items() if homes[n] == part}, tmp_path / part)
    index.write_text(json.dumps({"metadata": {}, "weight_map": homes}), "utf-8")
    found = rf.load(index, Network(), names=NAMES)
    np.testing.assert_allclose(found(X), by_hand(THEIRS, X), rtol=1e-6)
    for wrong, message in (
        (
            {**homes, "3.weight": "part-2.safetensors"},
            "'3.weight' in part-2.safetensors, which lacks",
        ),
        ({**homes, "2.bias": "../part-2.safetensors"}, "no .safetensors file beside it"),
        ({**homes, "2.bias": "part-9.safetensors"}, "'part-9.safetensors', which is no"),
        ([1, 2], "not an index"),
    ):
        index.write_text(json.dumps({"weight_map": wrong}), "utf-8")
        with pytest.raises(rf.InputError, match=message):
            read_weights(index)


FLAX = {"params": {"Dense_0": {"kernel": THEIRS["2.weight"].T, "bias": THEIRS["2.bias"]}}}
AS_OURS = {
    "names": lambda name: name.split(".")[-1].replace("kernel", "weight"),
    "transpose": {"weight": (1, 0)},
}


def test_a_file_of_flax(tmp_path):
    serialization = pytest.importorskip("flax.serialization")
    path = tmp_path / "model.msgpack"
    path.write_bytes(serialization.to_bytes(FLAX))
    head = Network().head
    found = rf.load(path, head, **AS_OURS)
    np.testing.assert_array_equal(found.weight, THEIRS["2.weight"])
    np.testing.assert_array_equal(read_weights(path)["params"]["Dense_0"]["bias"], THEIRS["2.bias"])
    for content in (b"", path.read_bytes()[:-4], b"nonsense", serialization.msgpack_serialize(3)):
        path.write_bytes(content)
        with pytest.raises(rf.InputError, match="not a whole file of weights"):
            read_weights(path)


def test_a_checkpoint_of_orbax(tmp_path):
    ocp = pytest.importorskip("orbax.checkpoint")
    kept = {**FLAX, "half": jnp.ones(2, jnp.bfloat16), "step": 3}
    with ocp.CheckpointManager(tmp_path / "run") as manager:
        manager.save(40, args=ocp.args.StandardSave(kept))
        manager.wait_until_finished()
    found = read_weights(tmp_path / "run" / "40")
    assert found["step"] == 3 and found["half"].dtype == jnp.bfloat16
    head = rf.load({"params": found["params"]}, Network().head, **AS_OURS)
    np.testing.assert_array_equal(head.weight, THEIRS["2.weight"])
    with pytest.raises(rf.InputError, match="it holds the steps 40; name the folder"):
        read_weights(tmp_path / "run")
    (tmp_path / "run" / "40" / "default" / "_METADATA").write_text("{}")
    with pytest.raises(rf.InputError, match="not a whole checkpoint of Orbax"):
        read_weights(tmp_path / "run" / "40")


def test_a_torch_model_in_an_equinox_network(tmp_path):
    torch = pytest.importorskip("torch")
    files = pytest.importorskip("safetensors.torch")
    model = torch.nn.Sequential(torch.nn.Conv1d(2, 3, 1), torch.nn.Flatten(), torch.nn.Linear(3, 3))
    files.save_file(model.state_dict(), tmp_path / "model.safetensors")
    ours = lambda name: name.replace("0.", "conv.").replace("2.", "head.")
    found = rf.load(tmp_path / "model.safetensors", Network(), names=ours)
    expected = model(torch.from_numpy(X)[None])[0].detach().numpy()
    np.testing.assert_allclose(found(X), expected, rtol=1e-5, atol=1e-6)
    # And back.
    rf.save(tmp_path / "back.safetensors", found)
    back = files.load_file(tmp_path / "back.safetensors")
    assert torch.equal(back["head.weight"], model[2].weight)
