"""A bundle passes MONAI's own checks, holds the weights' numbers, and can be run from its configuration."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from medrecon.bundle import inference_config, write_bundle
from medrecon.cli import app
from medrecon.core.errors import UsageError, WeightsError
from medrecon.networks import weights
from medrecon.networks.heart import Bundled, HeartOf, load_bundled
from tests.makers_weights import save_random

TENSOR = {
    "type": "object",
    "required": ["type", "format", "num_channels", "spatial_shape", "dtype", "value_range"],
    "properties": {
        "num_channels": {"type": "integer", "minimum": 1},
        "spatial_shape": {"type": "array", "items": {"type": ["string", "integer"]}},
        "value_range": {"type": "array", "items": {"type": "number"}},
        "is_patch_data": {"type": "boolean"},
    },
}
TENSORS = {"type": "object", "additionalProperties": TENSOR, "minProperties": 1}
#: What the bundle specification demands, written from its text: MONAI's own schema must be downloaded, tests have no network.
SCHEMA = {
    "$schema": "https://json-schema.org/draft/2019-09/schema",
    "type": "object",
    "required": [
        *("schema", "version", "monai_version", "pytorch_version", "numpy_version", "required_packages_version"),
        *("task", "description", "authors", "copyright", "network_data_format"),
    ],
    "properties": {
        **{key: {"type": "string", "minLength": 1} for key in ("version", "monai_version", "task", "description", "authors")},
        **{key: {"type": "object"} for key in ("required_packages_version", "changelog", "eval_metrics")},
        "network_data_format": {
            "type": "object",
            "required": ["inputs", "outputs"],
            "properties": {"inputs": TENSORS, "outputs": TENSORS},
        },
    },
}
NETWORKS: dict[str, dict[str, Any]] = {
    "flow": {"levels": 1, "channels": 4, "layers": 1},
    "residual_unet": {"widths": [4, 8], "units": 1},
    "recurrent_inference": {"channels": 4},
}


def monai_bundle(*arguments: str) -> subprocess.CompletedProcess[str]:
    pytest.importorskip("fire", reason="MONAI's command line needs the package fire")
    command = [sys.executable, "-m", "monai.bundle", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=280, env=environment)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    save_random(tmp_path / "small.safetensors", "flow", NETWORKS["flow"])
    return write_bundle(str(tmp_path / "small.safetensors"), tmp_path / "bundles")


def verify_metadata(bundle: Path, folder: Path) -> None:
    """What ``python -m monai.bundle verify_metadata`` does, in this process: its start takes seconds."""
    from monai.bundle import verify_metadata as verify

    text = json.dumps(SCHEMA)
    (folder / "schema.json").write_text(text, encoding="utf-8")
    known = {"hash_val": hashlib.sha256(text.encode()).hexdigest(), "hash_type": "sha256"}
    verify(str(bundle / "configs" / "metadata.json"), filepath=str(folder / "schema.json"), **known)


def test_monai_finds_the_metadata_as_they_must_be(written: Path, tmp_path: Path) -> None:
    verify_metadata(written, tmp_path)


def test_monai_refuses_metadata_without_the_format_of_the_network(written: Path, tmp_path: Path) -> None:
    path = written / "configs" / "metadata.json"
    data = json.loads(path.read_text())
    del data["network_data_format"]["outputs"]["pred"]["num_channels"]
    path.write_text(json.dumps(data))
    with pytest.raises(ValueError, match="Failed validating"):
        verify_metadata(written, tmp_path)


@pytest.mark.parametrize("network", NETWORKS)
def test_monai_finds_inputs_and_outputs_of_the_network_as_described(network: str, tmp_path: Path) -> None:
    save_random(tmp_path / "small.safetensors", network, NETWORKS[network])
    verify_in_out(write_bundle(str(tmp_path / "small.safetensors"), tmp_path / "bundles"))


def verify_in_out(bundle: Path, **changes: Any) -> None:
    """What ``python -m monai.bundle verify_net_in_out network_def`` does, in this process: its start takes seconds."""
    from monai.bundle import verify_net_in_out

    meta, config = bundle / "configs" / "metadata.json", bundle / "configs" / "inference.json"
    verify_net_in_out("network_def", meta_file=str(meta), config_file=str(config), device="cpu", any=8, **changes)


def test_both_checks_pass_from_the_command_line_too(written: Path, tmp_path: Path) -> None:
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA), encoding="utf-8")
    meta, config = str(written / "configs" / "metadata.json"), str(written / "configs" / "inference.json")
    files = ["--meta_file", meta, "--config_file", config]
    for arguments in (
        ["verify_metadata", "--meta_file", meta, "--filepath", str(tmp_path / "schema.json")],
        ["verify_net_in_out", "network_def", *files, "--device", "cpu", "--any", "8"],
    ):
        answer = monai_bundle(*arguments)
        assert answer.returncode == 0, answer.stderr
        assert "verified with no error" in answer.stdout + answer.stderr


def test_monai_refuses_a_network_that_answers_with_other_channels(written: Path) -> None:
    with pytest.raises(ValueError, match="output channel number"):
        verify_in_out(written, **{"_meta_#network_data_format#outputs#pred#num_channels": 7})


def test_both_forms_of_the_weights_hold_the_same_numbers(written: Path) -> None:
    pickled = torch.load(written / "models" / "model.pt", weights_only=True)
    ours = load_bundled(str(written / "models" / "model.safetensors"))
    assert set(pickled) == set(ours.state_dict())
    assert all(torch.equal(pickled[name], tensor) for name, tensor in ours.state_dict().items())


def test_a_state_dictionary_of_a_bundle_fits_the_network_of_its_configuration(written: Path) -> None:
    config = json.loads((written / "configs" / "inference.json").read_text())["network_def"]
    network = Bundled(config["name"], config["settings"])
    network.load_state_dict(torch.load(written / "models" / "model.pt", weights_only=True))
    image = torch.rand(1, 2, 8, 8)
    alone = HeartOf(weights.load(str(written / "models" / "model.safetensors")).module)(image[:, :1], image[:, 1:])
    torch.testing.assert_close(network(image), alone)


def test_a_bundle_holds_what_the_specification_demands(written: Path) -> None:
    for name in ("LICENSE", "configs/metadata.json", "configs/inference.json", "models/model.pt", "docs/README.md"):
        assert (written / name).stat().st_size > 0
    assert "Apache License" in (written / "LICENSE").read_text()
    assert "Not for diagnosis" in (written / "docs" / "README.md").read_text()


def test_a_bundle_is_not_written_over_unasked(written: Path, tmp_path: Path) -> None:
    source = str(tmp_path / "small.safetensors")
    with pytest.raises(UsageError, match="OUT-EXISTS"):
        write_bundle(source, written.parent)
    assert write_bundle(source, written.parent, overwrite=True) == written


def test_a_network_that_asks_a_forward_model_is_refused_with_a_code(tmp_path: Path) -> None:
    save_random(tmp_path / "small.safetensors", "primal_dual", {"steps": 1, "memory": 1, "width": 4})
    with pytest.raises(UsageError, match="BND-NETWORK"):
        write_bundle(str(tmp_path / "small.safetensors"), tmp_path / "bundles")
    assert not (tmp_path / "bundles").exists()


def test_the_command_writes_a_bundle_and_says_where(tmp_path: Path) -> None:
    save_random(tmp_path / "small.safetensors", "flow", NETWORKS["flow"])
    answer = CliRunner().invoke(app, ["bundle", str(tmp_path / "small.safetensors"), "--out", str(tmp_path / "b")])
    assert answer.exit_code == 0, answer.output
    assert (tmp_path / "b" / "small" / "LICENSE").is_file()


@pytest.mark.parametrize("name", weights.shipped())
def test_every_shipped_network_that_takes_tensors_alone_makes_a_bundle(name: str, tmp_path: Path) -> None:
    try:
        bundle = write_bundle(name, tmp_path)
    except UsageError as error:
        if error.code != "BND-NETWORK":
            raise
        pytest.skip("this network asks a forward model; a bundle cannot hold it")
    verify_in_out(bundle)


def test_weights_that_are_not_there_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="MDL-MISSING"):
        write_bundle("no_such_weights", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_weights_with_a_method_of_their_name_can_be_run(written: Path) -> None:
    manifest = weights.load(str(written / "models" / "model.safetensors")).manifest
    assert "run" in inference_config("refine", manifest)
    assert "run" not in inference_config("small", manifest)
