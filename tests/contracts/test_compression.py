"""Every way to compress is made, judged by the task and put into one table; what fails says why and stops nothing."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from medrecon.core.errors import UsageError
from medrecon.networks import weights
from medrecon.networks.heart import HeartOf, fitted, recorded, transplanted
from medrecon.training import compression
from medrecon.training.compression import Subject, _export
from medrecon.training.compression.config import CompressionConfig, load_compression, shipped_names
from medrecon.training.compression.run import Row, Table, compress
from medrecon.training.config import find_recipe, load_training
from tests.makers_training import SMALL as SMALL_RECIPES
from tests.makers_weights import save_random

SMALL = ("settings.pixels=32", "settings.pairs=1", "batch=1", "network.settings.levels=1", "network.settings.channels=8")


@pytest.fixture(scope="module")
def flow_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_random(path, "flow", {"levels": 1, "channels": 8})
    return path


@pytest.fixture(scope="module")
def made(flow_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Row]]:
    """A table of the variants that need nothing but torch, and one that cannot be made."""
    out = tmp_path_factory.mktemp("out")
    variants = [
        {"kind": "bfloat16"},
        {"kind": "pruning", "settings": {"network": {"channels": 4}, "steps": 2}},
        {"kind": "pruning", "name": "impossible", "settings": {"network": {"channels": 16}, "steps": 0}},
        {"kind": "distillation", "settings": {"network": {"channels": 4}, "steps": 2}},
    ]
    data = {"weights": str(flow_weights), "recipe": "train-flow", "assign": SMALL, "variants": variants, "calls": 2}
    table = compress(CompressionConfig.model_validate(data), out)
    return out, {row.name: row for row in table.rows}


def test_every_variant_is_a_row_beside_the_original(made: tuple[Path, dict[str, Row]]) -> None:
    out, rows = made
    assert list(rows) == ["original", "bfloat16", "pruning", "impossible", "distillation"]
    assert Table.model_validate(json.loads((out / "table.json").read_text())).rows == tuple(rows.values())
    for row in rows.values():
        assert bool(row.failed) == (row.name == "impossible")
        if not row.failed:
            assert row.cpu_seconds > 0
            assert set(row.metrics) == set(rows["original"].metrics)


def test_what_fails_says_why_and_the_others_go_on(made: tuple[Path, dict[str, Row]]) -> None:
    assert "CMP-PRUNE" in made[1]["impossible"].failed
    assert not made[1]["distillation"].failed


def test_half_the_bits_are_half_the_bytes_of_the_weights(made: tuple[Path, dict[str, Row]], flow_weights: Path) -> None:
    values = sum(tensor.numel() for tensor in safetensors.torch.load_file(flow_weights).values())
    kept = safetensors.torch.load_file(made[0] / "bfloat16" / "bfloat16.safetensors")
    assert sum(tensor.numel() * tensor.element_size() for tensor in kept.values()) == 2 * values
    assert 0 < made[1]["bfloat16"].apart < 0.05


def test_a_pruned_network_is_an_ordinary_one_that_can_be_loaded(made: tuple[Path, dict[str, Row]]) -> None:
    loaded = weights.load(made[0] / "pruning" / "pruning.safetensors")
    assert loaded.manifest.network == "flow"
    assert loaded.manifest.config["channels"] == 4
    assert made[1]["pruning"].bytes < made[1]["original"].bytes


def test_the_original_is_not_changed_by_its_variants(made: tuple[Path, dict[str, Row]], flow_weights: Path) -> None:
    before, after = safetensors.torch.load_file(flow_weights), safetensors.torch.load_file(made[0] / "original.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_table_is_not_written_over(made: tuple[Path, dict[str, Row]], flow_weights: Path) -> None:
    data = {"weights": str(flow_weights), "recipe": "train-flow", "variants": [{"kind": "bfloat16"}]}
    with pytest.raises(UsageError, match="OUT-EXISTS"):
        compress(CompressionConfig.model_validate(data), made[0])


NEEDS = {"torch_export": "torch", "onnx": "onnxruntime", "openvino": "openvino", "int8": "nncf"}


@pytest.mark.parametrize("kind", NEEDS)
def test_an_exported_network_answers_as_the_network_itself(kind: str, flow_weights: Path, tmp_path: Path) -> None:
    pytest.importorskip(NEEDS[kind], reason=f"{NEEDS[kind]} comes with the extra `export`")
    if kind == "onnx":
        pytest.importorskip("onnxscript", reason="onnxscript comes with the extra `export`")
    data = {"weights": str(flow_weights), "recipe": "train-flow", "assign": SMALL, "variants": [{"kind": kind}], "calls": 2}
    row = compress(CompressionConfig.model_validate(data), tmp_path / "out").rows[1]
    assert not row.failed
    assert row.bytes > 0
    assert row.apart < (0.2 if kind == "int8" else 0.02)


def subject_of(network: nn.Module, folder: Path) -> Subject:
    """A convolution that was given one image of 5 x 5 pixels and met 6 x 5 elsewhere."""
    fields = dict.fromkeys(("network", "settings", "manifest", "weights", "use", "finetune"))
    return Subject(**fields, module=network, calls=[(torch.ones(1, 1, 5, 5),)], extent=(6, 5), folder=folder)  # type: ignore[arg-type]  # not asked for


def test_the_check_of_an_export_fails_on_another_network(tmp_path: Path) -> None:
    subject = subject_of(nn.Conv2d(1, 1, 3, padding=1), tmp_path)
    assert "6x5" in _export.made_of(subject, HeartOf(subject.module), 1e-3).note
    with pytest.raises(UsageError, match="CMP-EXPORT"):
        _export.made_of(subject, lambda x: 1.1 * subject.module(x), 1e-3)


def test_a_heart_of_one_extent_serves_smaller_inputs_and_refuses_larger_ones() -> None:
    network = nn.Conv2d(1, 1, 1)
    x = torch.rand(1, 1, 4, 3)
    torch.testing.assert_close(fitted(network, (6, 5))(x), network(x))
    with pytest.raises(ValueError, match="exported for"):
        fitted(network, (3, 5))(x)


def test_a_network_without_its_libraries_is_a_row_that_names_them(
    flow_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setattr("torch.onnx.export", lambda *_, **__: _Nothing())
    data = {"weights": str(flow_weights), "recipe": "train-flow", "assign": SMALL, "variants": [{"kind": "onnx"}], "calls": 1}
    row = compress(CompressionConfig.model_validate(data), tmp_path / "out").rows[1]
    assert "onnxruntime" in row.failed


class _Nothing:
    def save(self, path: Path) -> None:
        path.touch()


class Asking(nn.Module):
    """A network whose heart is a step that it takes twice, as the recurrent one does."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv3d(1, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.step(self.step(x))

    def step(self, x: Tensor) -> Tensor:
        answer: Tensor = self.layer(x)
        return answer


def test_a_heart_is_recorded_and_replaced_inside_its_network() -> None:
    network, x = Asking(), torch.ones(1, 1, 2, 2, 2)
    calls, extent = recorded(network, lambda watched: watched(x), most=5)
    assert len(calls) == 2
    assert extent == (2, 2, 2)
    torch.testing.assert_close(calls[1][0], network.step(x))
    torch.testing.assert_close(transplanted(network, lambda inner: inner + 1)(x), x + 2)
    torch.testing.assert_close(network(x), network.step(network.step(x)))


@pytest.mark.parametrize("name", compression.names())
def test_every_variant_has_settings_and_a_sentence_about_it(name: str) -> None:
    variant = compression.get(name)
    assert variant.settings.__doc__
    assert variant.make.__doc__


@pytest.mark.parametrize("name", shipped_names())
def test_a_shipped_configuration_runs_for_a_step(name: str, tmp_path: Path) -> None:
    """As it ships, but on the smallest examples, for one step, and without the exports, which have tests of their own."""
    config = load_compression(name)
    recipe = load_training(find_recipe(config.recipe))
    save_random(tmp_path / "random.safetensors", recipe.network.name, dict(recipe.network.settings))
    tiny = [item for item in SMALL_RECIPES[config.recipe] if not item.startswith(("network.", "settings.functions"))]
    variants = [
        variant.model_copy(update={"settings": {**variant.settings, "steps": 1} if variant.settings else {}})
        for variant in config.variants
        if variant.kind not in NEEDS
    ]
    changed = {
        "weights": str(tmp_path / "random.safetensors"),
        "assign": (*tiny, "precision=float32"),
        "variants": tuple(variants),
        "calls": 1,
    }
    table = compress(config.model_copy(update=changed), tmp_path / "out")
    assert [row.failed for row in table.rows] == [""] * (1 + len(variants))


def test_the_command_prints_the_table(flow_weights: Path, tmp_path: Path) -> None:
    from medrecon.cli import app

    assigned = ", ".join(f'"{item}"' for item in SMALL)
    text = f"weights: {flow_weights}\nrecipe: train-flow\nassign: [{assigned}]\nvariants: [{{kind: bfloat16}}]\ncalls: 1\n"
    (tmp_path / "c.yaml").write_text(text, encoding="utf-8")
    answer = CliRunner().invoke(app, ["compress", str(tmp_path / "c.yaml"), "--out", str(tmp_path / "out"), "--progress", "none"])
    assert answer.exit_code == 0, answer.output
    assert "bfloat16" in answer.output
    assert "times as fast" in answer.output
