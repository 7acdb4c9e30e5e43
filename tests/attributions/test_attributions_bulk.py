"""Explaining more than fits in memory: any source, the same numbers, and the same bits after a kill."""

from __future__ import annotations

import errno
import io
import itertools
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import rightly as rt
from contracts.problems import draws
from rightly.attributions import bulk, store
from rightly.attributions.bulk import ChunkSize
from rightly.attributions.sources import Source
from rightly.attributions.store import StoredAttributions
from rightly.core.errors import ArgumentError, CheckpointError, DataError, ShapeError
from rightly.core.seeding import generator

ROWS = 150
FILES = ["attributions", "completeness_gap", "outputs", "standard_error", "target"]


def network() -> nn.Module:
    return rt.models.mlp(5, [7], 3, seed=1)


INPUTS = torch.randn(ROWS, 5, generator=draws(2))
LABELS = torch.arange(ROWS) % 3
CALL = {"reference": rt.references.Sample(torch.randn(20, 5, generator=draws(3))), "n_samples": 6, "chunk_size": 50}


def explain(out, inputs=INPUTS, model=None, **changes):
    return rt.attribute(model or network(), inputs, **{**CALL, "out": out, **changes})


def bits(folder: Path) -> dict[str, bytes]:
    return {path.stem: path.read_bytes() for path in sorted(folder.glob("*.npy"))}


class Failing(nn.Module):
    """A model that breaks down after so many calls."""

    def __init__(self, calls: int, error: BaseException) -> None:
        super().__init__()
        self.inner, self.calls, self.error = network(), calls, error

    def forward(self, x):
        self.calls -= 1
        if self.calls < 0:
            raise self.error
        return self.inner(x)


class TestNumbers:
    def test_each_block_is_what_the_attribution_gives(self, tmp_path):
        stored = explain(tmp_path / "out")
        assert isinstance(stored.attributions, np.memmap)
        assert stored.complete
        assert stored.rows == ROWS
        method = rt.ExpectedGradients(CALL["reference"], n_samples=6, target="predicted")
        for first in range(0, ROWS, 64):
            part = slice(first, first + 64)
            block = method(network(), INPUTS[part], generator=generator("attribute", 0, first), chunk_size=50)
            for name in FILES:
                assert np.array_equal(getattr(stored, name)[part], getattr(block, name).numpy()), name

    def test_a_method_without_draws_gives_what_it_gives_in_memory(self, tmp_path):
        stored = explain(tmp_path, reference=None, n_samples=None, method="input_x_gradient")
        whole = rt.attribute(network(), INPUTS, "input_x_gradient")
        np.testing.assert_allclose(stored.attributions, whole.attributions.numpy(), rtol=1e-6, atol=1e-7)
        assert stored.standard_error is None

    def test_labels_and_targets_are_cut_to_the_block(self, tmp_path):
        stored = explain(tmp_path / "a", labels=LABELS)
        assert stored.target.tolist() == LABELS.tolist()
        given = explain(tmp_path / "b", target=LABELS)
        assert bits(tmp_path / "a") == bits(tmp_path / "b")
        assert given.target.tolist() == LABELS.tolist()

    def test_the_chunk_size_changes_rounding_only(self, tmp_path):
        small, large = (explain(tmp_path / str(size), chunk_size=size).attributions for size in (7, 10**6))
        np.testing.assert_allclose(small, large, rtol=1e-4, atol=1e-6)

    def test_without_diagnostics_there_are_fewer_passes_and_files(self, tmp_path):
        explain(tmp_path / "a", target=0)
        explain(tmp_path / "b", target=0, diagnostics=False)
        assert set(bits(tmp_path / "b")) < set(FILES)
        assert bits(tmp_path / "a")["attributions"] == bits(tmp_path / "b")["attributions"]

    def test_large_examples_make_small_blocks(self, tmp_path, monkeypatch):
        monkeypatch.setattr(bulk, "_NUMBERS_A_BLOCK", 50)
        assert explain(tmp_path).facts["identity"]["rows_a_block"] == 10

    def test_half_precision_is_stored_wider(self, tmp_path):
        stored = explain(tmp_path, INPUTS[:4].bfloat16(), network().bfloat16(), reference=rt.references.InBatch())
        assert stored.attributions.dtype == np.float32


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    folder = tmp_path_factory.mktemp("expected") / "out"
    explain(folder, labels=LABELS)
    return bits(folder)


class TestSources:
    """Whatever the rows come in, the same bits go out."""

    @pytest.mark.parametrize("batch_size", [1, 10, 64, 97, 1000])
    def test_loader(self, tmp_path, expected, batch_size):
        stored = explain(tmp_path, DataLoader(TensorDataset(INPUTS, LABELS), batch_size=batch_size))
        assert bits(tmp_path) == expected
        assert stored.facts["identity"]["inputs"]["rows"] == ROWS

    def test_dataset(self, tmp_path, expected):
        explain(tmp_path, TensorDataset(INPUTS, LABELS))
        assert bits(tmp_path) == expected

    def test_dataset_of_inputs_and_numbers(self, tmp_path, expected):
        class Pairs:
            def __len__(self):
                return ROWS

            def __getitem__(self, i):
                return INPUTS[i], int(LABELS[i])

        explain(tmp_path, Pairs())
        assert bits(tmp_path) == expected

    def test_generator_of_batches(self, tmp_path, expected):
        stored = explain(tmp_path, zip(INPUTS.split(40), LABELS.split(40), strict=True))
        assert bits(tmp_path) == expected
        assert stored.facts["identity"]["inputs"]["rows"] is None

    def test_list_of_batches(self, tmp_path, expected):
        explain(tmp_path, list(zip(INPUTS.split(40), LABELS.split(40), strict=True)))
        assert bits(tmp_path) == expected

    def test_array_and_file(self, tmp_path, expected):
        np.save(tmp_path / "inputs.npy", INPUTS.numpy())
        mapped = np.load(tmp_path / "inputs.npy", mmap_mode="r")
        for name, inputs in {
            "path": tmp_path / "inputs.npy",
            "text": str(tmp_path / "inputs.npy"),
            "map": mapped,
        }.items():
            explain(tmp_path / name, inputs, labels=LABELS)
            assert bits(tmp_path / name) == expected

    @pytest.mark.parametrize("kind", ["tuple", "dict", "loader"])
    def test_several_tensors(self, tmp_path, kind):
        left, right = INPUTS[:, :2], INPUTS[:, 2:]
        inputs = {
            "tuple": (left, right),
            "dict": {"a": left, "b": right},
            "loader": [((a, b), y) for a, b, y in zip(left.split(9), right.split(9), LABELS.split(9), strict=True)],
        }[kind]

        def model(a, b):
            return torch.cat([a, b], 1) ** 2

        space = rt.spaces.Input("a" if kind == "dict" else 0)
        stored = rt.attribute(model, inputs, "gradient", target=1, space=space, out=tmp_path)
        np.testing.assert_allclose(stored.attributions[:, 1], 2 * left[:, 1].numpy())

    def test_the_order_must_be_known(self, tmp_path):
        with pytest.raises(ArgumentError, match="shuffle=False"):
            explain(tmp_path, DataLoader(TensorDataset(INPUTS), batch_size=8, shuffle=True))

    @pytest.mark.parametrize(
        ("data", "error", "match"),
        [
            (3, ArgumentError, "no examples"),
            ([], DataError, "no batch at all"),
            (iter(["text"]), DataError, "cannot be read"),
            (torch.zeros(0, 5), ShapeError, "empty"),
            (np.array(["a", "b"]), DataError, "numbers that PyTorch knows"),
            ([torch.zeros(3, 5), torch.zeros(2, 5)], ShapeError, "do not agree"),
            (iter([torch.zeros(3, 5), torch.zeros(2, 4)]), ShapeError, "do not fit together"),
            ("nowhere.npy", DataError, "No such file"),
        ],
        ids=str,
    )
    def test_what_cannot_be_read(self, tmp_path, data, error, match):
        with pytest.raises(error, match=match):
            explain(tmp_path / "out", data)
        assert not bits(tmp_path)

    def test_nothing_is_unpickled(self, tmp_path):
        np.save(tmp_path / "objects.npy", np.array([{"a": 1}]), allow_pickle=True)
        with pytest.raises(DataError, match="pickle"):
            explain(tmp_path / "out", tmp_path / "objects.npy")

    def test_labels_and_target_count_the_rows(self, tmp_path):
        with pytest.raises(ShapeError, match="labels do not fit"):
            explain(tmp_path, labels=LABELS[:-1])
        with pytest.raises(ShapeError, match="target does not fit"):
            explain(tmp_path, target=LABELS[:-1])

    def test_memory_does_not_hold_the_data(self, tmp_path):
        """A stream of a million rows is read as far as it is explained, no further."""
        taken = itertools.count()
        endless = (INPUTS[:10] for _ in taken)
        with pytest.raises(RuntimeError, match="enough"):
            explain(tmp_path, endless, Failing(60, RuntimeError("enough")))
        assert next(taken) < 60


class TestResuming:
    @pytest.mark.parametrize("calls", [1, 15, 30, 33])
    @pytest.mark.parametrize("stream", [False, True])
    def test_an_interrupted_run_ends_with_the_same_bits(self, tmp_path, calls, stream):
        def data():
            return iter(INPUTS.split(37)) if stream else INPUTS

        model = Failing(10**9, RuntimeError())
        explain(tmp_path / "whole", data(), model)
        with pytest.raises(KeyboardInterrupt):
            explain(tmp_path / "broken", data(), Failing(calls, KeyboardInterrupt()))
        stored = explain(tmp_path / "broken", data(), model, resume=True)
        assert stored.complete
        assert bits(tmp_path / "whole") == bits(tmp_path / "broken")

    def test_a_killed_process_ends_with_the_same_bits(self, tmp_path):
        script = textwrap.dedent(
            """
            import os, signal, sys
            import rightly as rt
            from rightly.attributions import bulk
            import attributions.test_attributions_bulk as here

            class Killed(here.Failing):
                def forward(self, x):
                    self.calls -= 1
                    if self.calls == 0:
                        os.kill(os.getpid(), signal.SIGKILL)
                    return self.inner(x)

            bulk._COMMIT_EVERY = 0.0
            here.explain(sys.argv[1], model=Killed(33, RuntimeError()))
            """
        )
        folder = tmp_path / "killed"
        tests = Path(__file__).parents[1]
        done = subprocess.run(
            [sys.executable, "-c", script, str(folder)], env={**os.environ, "PYTHONPATH": str(tests)}, check=False
        )
        assert done.returncode < 0
        assert 0 < StoredAttributions(folder).rows < ROWS
        with pytest.raises(CheckpointError, match="another explanation"):
            explain(folder, resume=True)  # of another class
        facts = json.loads((folder / "attributions.json").read_text())
        facts["identity"]["model"]["class"] = "Failing"
        (folder / "attributions.json").write_text(json.dumps(facts))
        explain(folder, model=Failing(10**9, RuntimeError()), resume=True)
        explain(tmp_path / "whole", model=Failing(10**9, RuntimeError()))
        assert bits(folder) == bits(tmp_path / "whole")

    def test_rows_beyond_the_last_commit_are_cut_off(self, tmp_path):
        explain(tmp_path / "whole")
        self.interrupt(tmp_path / "out")
        with (tmp_path / "out" / "attributions.npy").open("ab") as file:
            file.write(b"rubbish that a killed process left behind")
        explain(tmp_path / "out", resume=True)
        assert bits(tmp_path / "out") == bits(tmp_path / "whole")

    @staticmethod
    def interrupt(folder):
        """As a killed run leaves it: 64 rows committed."""
        stop = Failing(20, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            explain(folder, model=stop)
        path = folder / "attributions.json"
        facts = json.loads(path.read_text())
        identity = {
            **facts["identity"],
            "model": bulk._identity(network(), Source(INPUTS, None), rt.Gradient(), 0, True, 1)["model"],
        }
        path.write_text(json.dumps({**facts, "identity": identity}))
        assert facts["rows"] == 64

    def test_what_is_finished_can_be_read(self, tmp_path):
        self.interrupt(tmp_path)
        stored = StoredAttributions(tmp_path)
        assert not stored.complete
        assert stored.attributions.shape == (64, 5)
        assert np.load(tmp_path / "attributions.npy").shape == (64, 5)
        assert "64 rows, incomplete" in repr(stored)

    def test_a_finished_run_is_returned_at_once(self, tmp_path):
        before = explain(tmp_path)
        after = explain(tmp_path, model=None, resume=True)
        assert after.facts == before.facts

    @pytest.mark.parametrize(
        ("change", "named"),
        [
            ({"seed": 1}, "seed"),
            ({"n_samples": 7}, "n_samples"),
            ({"target": 1}, "target"),
            ({"reference": rt.references.Sample(torch.zeros(20, 5))}, "reference"),
            ({"model": rt.models.mlp(5, [7], 3, seed=2)}, "model"),
            ({"inputs": INPUTS + 1}, "inputs"),
            ({"inputs": INPUTS[:-1]}, "inputs"),
            ({"diagnostics": False}, "diagnostics"),
            ({"labels": LABELS, "target": "predicted"}, "labels"),
        ],
        ids=str,
    )
    def test_other_arguments_are_refused(self, tmp_path, change, named):
        self.interrupt(tmp_path)
        before = bits(tmp_path)
        with pytest.raises(CheckpointError, match=named):
            explain(tmp_path, **{**change, "resume": True})
        assert bits(tmp_path) == before

    def test_a_folder_with_something_in_it_is_left_alone(self, tmp_path):
        explain(tmp_path / "out")
        before = bits(tmp_path / "out")
        with pytest.raises(ArgumentError, match="resume=True"):
            explain(tmp_path / "out")
        assert bits(tmp_path / "out") == before
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / "thesis.txt").touch()
        with pytest.raises(CheckpointError, match="cannot be read"):
            explain(tmp_path / "other", resume=True)
        assert os.listdir(tmp_path / "other") == ["thesis.txt"]

    @pytest.mark.parametrize("damage", ["json", "missing", "short", "type"])
    def test_damage_is_named(self, tmp_path, damage):
        self.interrupt(tmp_path)
        path = tmp_path / "attributions.npy"
        if damage == "json":
            (tmp_path / "attributions.json").write_text("{")
        elif damage == "missing":
            path.unlink()
        elif damage == "short":
            np.save(path, np.load(path)[:40])
        else:
            np.save(path, np.load(path).astype(np.float64))
        with pytest.raises(CheckpointError, match="cannot be read"):
            explain(tmp_path, resume=True)
        with pytest.raises(CheckpointError, match="cannot be read"):
            _ = StoredAttributions(tmp_path).attributions

    def test_out_and_resume_belong_together(self, tmp_path):
        with pytest.raises(ArgumentError, match="nothing to resume"):
            explain(None, resume=True)
        with pytest.raises(ArgumentError, match="no graph"):
            explain(tmp_path, create_graph=True)
        with pytest.raises(ArgumentError, match="a folder"):
            explain(3)


class TestTrouble:
    def test_not_a_number_names_its_row(self, tmp_path):
        inputs = INPUTS.clone()
        inputs[100, 2] = torch.nan
        with pytest.raises(DataError, match="inputs of row 100"):
            explain(tmp_path / "a", inputs)
        assert StoredAttributions(tmp_path / "a").rows == 64
        negative = INPUTS.abs() - 9.0 * (torch.arange(ROWS)[:, None] == 3)
        with pytest.raises(DataError, match="attributions of row 3"):
            rt.attribute(lambda x: x.sqrt(), negative, "gradient", target=0, out=tmp_path / "b")
        assert not bits(tmp_path / "b")

    def test_a_first_failure_leaves_nothing_that_stands_in_the_way(self, tmp_path):
        with pytest.raises(ArgumentError, match="class that the model does not have"):
            explain(tmp_path, target=9)
        assert explain(tmp_path, target=2).complete

    def test_a_full_disk_keeps_what_is_finished(self, tmp_path, monkeypatch):
        def full(file):
            raise OSError(errno.ENOSPC, "No space left on device")

        stop = iter(range(100))
        real = store._to_disk
        monkeypatch.setattr(bulk, "_COMMIT_EVERY", 0.0)
        monkeypatch.setattr(store, "_to_disk", lambda file: (real if next(stop) < 12 else full)(file))
        with pytest.raises(DataError, match="No space left"):
            explain(tmp_path / "out")
        monkeypatch.undo()
        assert StoredAttributions(tmp_path / "out").rows == 64
        explain(tmp_path / "out", resume=True)
        explain(tmp_path / "whole")
        assert bits(tmp_path / "out") == bits(tmp_path / "whole")

    def test_a_folder_that_cannot_be_made(self, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(DataError, match="cannot be written"):
            explain(tmp_path / "file" / "out")

    def test_shapes_that_change_are_named(self, tmp_path):
        class Odd(nn.Module):
            def forward(self, x):
                return x[:, : 2 if bool((x > 50).all()) else 3]

        inputs = INPUTS.clone()
        inputs[64:128] = 99.0
        with pytest.raises(ShapeError, match="change at row 64"):
            explain(tmp_path, inputs, Odd(), target=0, method="input_x_gradient", reference=None, n_samples=None)

    def test_progress_reaches_the_end(self, tmp_path, monkeypatch):
        stream = io.StringIO()
        monkeypatch.setattr(sys, "stderr", stream)
        explain(tmp_path, progress=True)
        assert "ExpectedGradients: 150/150 (100 %)" in stream.getvalue()


class TestChunkSize:
    def test_the_fastest_is_kept(self, tmp_path, monkeypatch):
        """A clock that says that 32 points a pass are best."""
        now = [0.0]

        class Timed(nn.Module):
            def forward(self, x):
                now[0] += 1 + (len(x) - 32) ** 2
                return torch.cat([x, x], 1)

        monkeypatch.setattr(bulk.time, "perf_counter", lambda: now[0])
        monkeypatch.setattr(sys.modules["rightly.attributions.attribute"], "_NUMBERS_A_PASS", 32 * 5)
        inputs = INPUTS.repeat(4, 1)
        stored = explain(tmp_path, inputs, Timed(), chunk_size=None, target=0, diagnostics=False)
        assert stored.facts["chunk_size"]["candidates"] == [32, 8, 16, 64, 128]
        assert stored.facts["chunk_size"]["chosen"] == 32

    def test_a_resumed_run_goes_on_with_the_size_that_was_chosen(self):
        size = ChunkSize.restore({"candidates": [8, 16], "seconds": [9.0, 2.0, 1.0]}, None, 100, None)
        assert (size.measuring, size.current) == (False, 16)
        halfway = ChunkSize.restore({"candidates": [8, 16], "seconds": [9.0, 2.0]}, None, 100, None)
        assert (halfway.measuring, halfway.current) == (True, 16)
        assert ChunkSize.restore(size.facts(), 5, 100, None).current == 5

    def test_too_large_for_memory_is_too_large(self, tmp_path, monkeypatch):
        class Small(nn.Module):
            def forward(self, x):
                if len(x) > 20:
                    raise torch.OutOfMemoryError("no")
                return torch.cat([x, x], 1)

        monkeypatch.setattr(sys.modules["rightly.attributions.attribute"], "_NUMBERS_A_PASS", 32 * 5)
        inputs = INPUTS.repeat(4, 1)
        stored = explain(tmp_path / "a", inputs, Small(), chunk_size=None, target=0)
        assert stored.complete
        assert stored.facts["chunk_size"]["chosen"] in (8, 16)
        assert [i for i, s in enumerate(stored.facts["chunk_size"]["seconds"]) if s is None] == [0, 1, 4, 5]
        with pytest.raises(torch.OutOfMemoryError):
            explain(tmp_path / "b", inputs, Small(), chunk_size=64, target=0)


class TestParquet:
    def test_a_column_each_feature(self, tmp_path, monkeypatch):
        parquet = pytest.importorskip("pyarrow.parquet")
        monkeypatch.setattr(store, "_ROWS_A_GROUP", 40)
        stored = explain(tmp_path / "out")
        path = stored.to_parquet(tmp_path / "phi.parquet", names=list("abcde"))
        table = parquet.read_table(path)
        assert table.column_names == list("abcde")
        np.testing.assert_array_equal(np.stack([c.to_numpy() for c in table.columns], 1), stored.attributions)
        assert parquet.read_table(stored.to_parquet(tmp_path / "n.parquet")).column_names == list("01234")

    def test_names_have_to_fit(self, tmp_path):
        pytest.importorskip("pyarrow")
        with pytest.raises(ShapeError, match="F names"):
            explain(tmp_path / "out").to_parquet(tmp_path / "phi.parquet", names=["a"])
