"""The checkpoint file: what goes in comes out, and what was damaged does not come out at all."""

from __future__ import annotations

import pathlib
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import rightly
from rightly.core.errors import CheckpointError
from rightly.training import checkpoint

SHAPES = st.lists(st.integers(0, 3), max_size=3).map(tuple)
TYPES = st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.bool, torch.uint8])
TENSORS = st.builds(
    lambda shape, kind: (torch.arange(27)[: torch.Size(shape).numel()] % 5).reshape(shape).to(kind), SHAPES, TYPES
)
PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
# few keys, with dots and digits, so that names collide
KEYS = st.sampled_from(["a", "b", "a.b", "0", "a.0", "", "tensor", "items", "list", "value"]) | st.integers(0, 2)
STATES = st.recursive(
    PLAIN | TENSORS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.lists(inner, max_size=3).map(tuple) | st.dictionaries(KEYS, inner, max_size=4)
    ),
    max_leaves=12,
)


def equal(first, second) -> bool:
    if type(first) is not type(second):
        return False
    if isinstance(first, torch.Tensor):
        return first.dtype == second.dtype and first.shape == second.shape and torch.equal(first, second)
    if isinstance(first, dict):
        return list(first) == list(second) and all(equal(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(equal, first, second))
    return first == second


@given(STATES)
def test_any_state_comes_back_as_it_was(tmp_path_factory, state):
    path = tmp_path_factory.mktemp("state") / "deeper" / "c.safetensors"
    tensors = {}
    checkpoint.write(path, tensors, {"state": checkpoint.flatten("state", state, tensors)})
    read, facts = checkpoint.read(path)
    assert equal(checkpoint.restore(facts["state"], read), state)


def test_names_that_collide_are_kept_apart():
    state = {"a.b": torch.zeros(1), "a": {"b": torch.ones(1)}, 1: torch.full((1,), 2.0), "1": torch.full((1,), 3.0)}
    tensors = {}
    rest = checkpoint.flatten("s", state, tensors)
    assert len(tensors) == 4
    assert equal(checkpoint.restore(rest, tensors), state)


def test_shared_strided_and_trained_tensors_are_saved(tmp_path):
    base = torch.arange(12.0, requires_grad=True)
    state = {"whole": base, "view": base[2:], "turned": base.reshape(3, 4).T, "again": base}
    tensors = {}
    rest = checkpoint.flatten("s", state, tensors)
    checkpoint.write(tmp_path / "c", tensors, {"s": rest})
    found = checkpoint.restore(rest, checkpoint.read(tmp_path / "c")[0])
    assert all(torch.equal(found[name], state[name].detach()) for name in state)


@pytest.mark.parametrize("state", [object(), {1.5: 0}, {("a",): 0}, {"a": {1, 2}}, [lambda: 0], b"bytes"])
def test_what_cannot_be_saved_is_named(state):
    with pytest.raises(CheckpointError, match=r"state.* cannot be saved"):
        checkpoint.flatten("state", state, {})


def saved(path: pathlib.Path) -> bytes:
    tensors = {"weight": torch.arange(6.0), "step": torch.tensor(3)}
    checkpoint.write(path, tensors, {"run": {"history": [1, 2]}, "best": None})
    return path.read_bytes()


def test_a_damaged_byte_anywhere_is_an_error(tmp_path):
    path = tmp_path / "c.safetensors"
    whole = saved(path)
    for position in range(len(whole)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        with pytest.raises(CheckpointError) as caught:
            checkpoint.read(path)
        assert "delete it" in caught.value.mend
    path.write_bytes(whole)
    assert torch.equal(checkpoint.read(path)[0]["weight"], torch.arange(6.0))


def test_a_truncated_file_is_an_error(tmp_path):
    path = tmp_path / "c.safetensors"
    whole = saved(path)
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"c\.safetensors cannot be read"):
            checkpoint.read(path)


@pytest.mark.parametrize("content", [b"", b"{}", b"\x80\x04N.", b"\xff" * 64])
def test_other_files_are_an_error(tmp_path, content):
    (tmp_path / "c").write_bytes(content)
    with pytest.raises(CheckpointError):
        checkpoint.read(tmp_path / "c")
    with pytest.raises(CheckpointError):
        checkpoint.read(tmp_path)


def test_a_plain_safetensors_file_is_an_error(tmp_path):
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(2)}, tmp_path / "c")
    with pytest.raises(CheckpointError):
        checkpoint.read(tmp_path / "c")


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "c.safetensors"
    whole = saved(path)

    def broken(tensors, name, metadata):
        pathlib.Path(name).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(checkpoint, "save_file", broken)
    with pytest.raises(OSError, match="disk full"):
        checkpoint.write(path, {"weight": torch.zeros(6)}, {})
    assert path.read_bytes() == whole
    monkeypatch.undo()
    saved(path)  # the half-written file beside it is no obstacle
    assert [file.name for file in tmp_path.iterdir()] == ["c.safetensors"]


def test_the_library_has_no_pickle():
    forbidden = re.compile(r"(import|from) (pickle|shelve|marshal|joblib)|\bpickle\.|torch\.(load|save)\(")
    sources = sorted(pathlib.Path(rightly.__file__).parent.rglob("*.py"))
    assert len(sources) > 50
    assert [source.name for source in sources if forbidden.search(source.read_text(encoding="utf-8"))] == []
