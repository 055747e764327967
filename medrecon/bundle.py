"""Weights as a MONAI bundle: what MONAI's tools, model zoo and deploy SDK read.

The weights lie in it twice: as safetensors with their manifest, which is what medrecon loads, and as the pickled state
dictionary that the specification demands, which medrecon writes and never opens.
"""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medrecon import methods
from medrecon.core.errors import UsageError
from medrecon.core.provenance import RESEARCH_LABEL
from medrecon.safety.atomic import replacing_folder

if TYPE_CHECKING:
    from medrecon.networks.heart import Bundled
    from medrecon.networks.manifest import Manifest

SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
VERSION = "1.0.0"

_README = """# {name}

{summary}

{label}

Network `{network}`, {parameters} parameters, trained on {training_data} ({trained_on}, {trained_date}).
Licence of the weights: {licence}.

`models/model.safetensors` with `models/model.json` is what medrecon loads. `models/model.pt` holds the same numbers as the
pickled state dictionary of the bundle specification; open pickles only from sources that you trust.

The network takes one tensor. What its heart takes lies in it one after another, with {channels} channels; values are of
about 0 to 1.

"""


def write_bundle(name_or_path: str, out: Path, overwrite: bool = False) -> Path:
    """Write weights as a bundle to ``out/<name>/``.

    Parameters
    ----------
    name_or_path : str
        Shipped weights, or a safetensors file with its manifest.
    out : Path
    overwrite : bool
        Replace a bundle that is there.

    Raises
    ------
    WeightsError
        As `medrecon.networks.weights.load`.
    UsageError
        ``OUT-EXISTS``; ``BND-NETWORK`` for a network that takes something else than tensors.
    OutputError
        ``OUT-SPACE``, ``OUT-WRITE``.
    """
    from medrecon.networks import weights
    from medrecon.networks.heart import load_bundled

    name = Path(name_or_path).stem
    target = out / name
    if target.exists() and not overwrite:
        raise UsageError("OUT-EXISTS", "a bundle stands in the output folder already", "Choose another one, or pass --overwrite.")
    manifest = weights.load(name_or_path).manifest
    bundled = load_bundled(name_or_path)
    out.mkdir(parents=True, exist_ok=True)
    with replacing_folder(target) as folder:
        _write_models(folder / "models", bundled, manifest)
        _write_json(folder / "configs" / "metadata.json", bundle_metadata(name, bundled, manifest))
        _write_json(folder / "configs" / "inference.json", inference_config(name, manifest))
        _write_text(folder / "docs" / "README.md", _readme(name, bundled, manifest))
        _write_text(folder / "LICENSE", _licence(manifest.licence))
    return target


def bundle_metadata(name: str, bundled: Bundled, manifest: Manifest) -> dict[str, Any]:
    """Return what stands in ``configs/metadata.json``."""
    import monai
    import numpy as np
    import torch

    return {
        "schema": SCHEMA,
        "version": VERSION,
        "changelog": {VERSION: f"weights {manifest.sha256[:12]} of {manifest.trained_date}"},
        "monai_version": monai.__version__,
        "pytorch_version": torch.__version__.partition("+")[0],
        "numpy_version": np.__version__,
        "required_packages_version": {name: metadata.version(name) for name in ("medrecon", "safetensors")},
        "name": name,
        "task": f"{type(bundled.network).__doc__ or name}".strip().partition("\n")[0],
        "description": manifest.title or name,
        "authors": "The medrecon authors",
        "copyright": "The medrecon authors",
        "data_source": manifest.training_data,
        "data_type": "simulated",
        "image_classes": f"what the network's heart takes, with {', '.join(map(str, bundled.channels))} channels",
        "eval_metrics": dict(manifest.metrics),
        "intended_use": RESEARCH_LABEL,
        "references": [],
        "network_data_format": {
            "inputs": {"image": _tensor_format(sum(bundled.channels), bundled, [0, 1])},
            "outputs": {"pred": _tensor_format(_answered(bundled), bundled, [-1, 1])},
        },
    }


def inference_config(name: str, manifest: Manifest) -> dict[str, Any]:
    """Return what stands in ``configs/inference.json``: the network, and where there is a method of its name, a run of it."""
    config: dict[str, Any] = {
        "imports": ["$import medrecon"],
        "bundle_root": ".",
        "device": "cpu",
        "weights": "$@bundle_root + '/models/model.safetensors'",
        "network_def": {"_target_": "medrecon.networks.heart.Bundled", "name": manifest.network, "settings": manifest.config},
        "network": {"_target_": "medrecon.networks.heart.load_bundled", "path": "@weights", "device": "@device"},
    }
    if name not in methods.names():
        return config
    run = "medrecon.reconstruct(medrecon.read(@input), medrecon.ReconstructionConfig(method=@method), device=@device)"
    return {
        **config,
        "input": "study",
        "output_dir": "$@bundle_root + '/eval'",
        "method": name,
        "run": [f"${run}.save(@output_dir)"],
    }


def _write_models(folder: Path, bundled: Bundled, manifest: Manifest) -> None:
    import torch

    from medrecon.core.settings import parse
    from medrecon.networks import get, weights

    folder.mkdir(parents=True)
    settings = parse(get(manifest.network).settings, manifest.config, "network")
    weights.save(folder / f"model{weights.ENDING}", manifest.network, settings, bundled.network, manifest)
    torch.save(dict(bundled.state_dict()), folder / "model.pt")


def _tensor_format(channels: int, bundled: Bundled, values: list[float]) -> dict[str, Any]:
    axes = next(parameter.ndim - 2 for parameter in bundled.parameters() if parameter.ndim > 2)
    return {
        "type": "image",
        "format": "raw",
        "num_channels": channels,
        "spatial_shape": ["*"] * axes,
        "dtype": "float32",
        "value_range": values,
        "is_patch_data": True,
        "channel_def": {},
    }


def _answered(bundled: Bundled) -> int:
    """Return with how many channels the network answers, asked of a small example."""
    import torch

    axes = next(parameter.ndim - 2 for parameter in bundled.parameters() if parameter.ndim > 2)
    with torch.no_grad():
        return int(bundled(torch.zeros(1, sum(bundled.channels), *(8,) * axes)).shape[1])


def _readme(name: str, bundled: Bundled, manifest: Manifest) -> str:
    text = _README.format(
        name=name,
        summary=f"{type(bundled.network).__doc__ or ''}".strip().partition("\n")[0],
        label=RESEARCH_LABEL,
        channels=", ".join(map(str, bundled.channels)),
        **manifest.model_dump(include={"network", "parameters", "training_data", "trained_on", "trained_date", "licence"}),
    )
    return text + "".join(f"- {metric}: {value:.4g}\n" for metric, value in manifest.metrics.items())


def _licence(name: str) -> str:
    """Return the text of the licence that the package itself is under, or the name of another one."""
    installed = metadata.distributions(name="medrecon") if name == "Apache-2.0" else ()
    texts = (distribution.read_text("licenses/LICENSE") for distribution in installed)
    return next((text for text in texts if text), f"The weights are licensed under {name}.\n")


def _write_json(path: Path, data: dict[str, Any]) -> None:
    _write_text(path, json.dumps(data, indent=2) + "\n")


def _write_text(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
