"""Weights on disk: safetensors with a manifest beside them. Nothing is ever unpickled.

The header is judged before memory is taken, the bytes are hashed before they are decoded, names, shapes and values are
compared before a module is built in memory.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from medrecon import networks
from medrecon.core.errors import UsageError, WeightsError
from medrecon.core.settings import Config
from medrecon.networks._safetensors_header import LENGTH_BYTES, header_length, judge_header
from medrecon.networks.manifest import Manifest, Training, manifest_path, read_manifest
from medrecon.safety.atomic import replacing
from medrecon.safety.limits import Limits, free_memory_bytes

ENDING = ".safetensors"
SHIPPED = Path(__file__).parent / "shipped"
_PICKLE_ENDINGS = frozenset({".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".bin", ".ts", ".zip"})
_LISTED = 3


@dataclass(frozen=True, slots=True)
class LoadedNet:
    """A network ready for use, in evaluation mode on its device, and the story of its weights."""

    module: nn.Module
    manifest: Manifest


def shipped() -> tuple[str, ...]:
    """Return the names of the weights that come with the package."""
    return tuple(sorted(path.stem for path in SHIPPED.glob(f"*{ENDING}")))


def save(path: Path, network: str, config: Config, module: nn.Module, training: Training) -> Manifest:
    """Write the weights of a network to `path` (``NAME.safetensors``) and their manifest to ``NAME.json``.

    Raises
    ------
    WeightsError
        ``MDL-VALUE`` where a weight is not finite, ``MDL-FORMAT`` for another ending.
    """
    if path.suffix != ENDING:
        raise _no_safetensors(f"weights are written as {ENDING} only")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
    _refuse_values(tensors)
    data = safetensors.torch.save(tensors)
    story = training.model_dump(include=set(Training.model_fields))
    manifest = Manifest(
        **story,
        network=network,
        config=config.model_dump(mode="json"),
        sha256=hashlib.sha256(data).hexdigest(),
        parameters=sum(parameter.numel() for parameter in module.parameters()),
    )
    with replacing(path) as scratch:
        scratch.write_bytes(data)
    with replacing(manifest_path(path)) as scratch:
        scratch.write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return manifest


def load(name_or_path: str | Path, device: str | torch.device = "cpu", limits: Limits | None = None) -> LoadedNet:
    """Load shipped weights by name, or a file of weights by its path.

    Parameters
    ----------
    name_or_path : str or Path
        One of `shipped`, or the path of a ``.safetensors`` file with its manifest beside it.
    device : str or torch.device
    limits : Limits, optional

    Raises
    ------
    WeightsError
        ``MDL-MISSING``, ``MDL-FORMAT`` (a pickle, or no safetensors file), ``MDL-MANIFEST``, ``MDL-HEADER``, ``MDL-HASH``,
        ``MDL-SHAPE`` (names or shapes are not the network's), ``MDL-VALUE`` (a weight is not finite).
    """
    path = _locate(name_or_path)
    data = _read_judged(path, limits or Limits())
    manifest = read_manifest(manifest_path(path))
    if hashlib.sha256(data).hexdigest() != manifest.sha256:
        raise WeightsError("MDL-HASH", "the weights are not those that their manifest names", "Take both files again.")
    tensors = _decode(data)
    module = _build(manifest, tensors)
    _refuse_values(tensors)
    module.load_state_dict(tensors)
    return LoadedNet(module.to(device).eval(), manifest)


def _read_judged(path: Path, limits: Limits) -> bytes:
    """Return the bytes of a safetensors file, read once, of which the header was judged before the rest was read."""
    try:
        with open(path, "rb", opener=_ordinary) as file:
            file_bytes = os.fstat(file.fileno()).st_size
            start = file.read(LENGTH_BYTES + 1)
            start += file.read(header_length(start, file_bytes) - 1)
            _refuse_size(file_bytes, limits)
            judge_header(start[LENGTH_BYTES:], file_bytes - len(start), limits.tensors)
            return start + file.read(file_bytes - len(start))
    except OSError as error:
        hint = "Check that it is an ordinary file which you may read."
        raise WeightsError("MDL-MISSING", f"the weights cannot be read ({type(error).__name__})", hint) from error


def _decode(data: bytes) -> dict[str, Tensor]:
    try:
        return dict(safetensors.torch.load(data))
    except safetensors.SafetensorError as error:
        raise WeightsError("MDL-HEADER", "the weights cannot be decoded", "Take the file again from its source.") from error


def _ordinary(name: str, flags: int) -> int:
    """Open an ordinary file only; a pipe must not make the opening wait for its other end."""
    descriptor = os.open(name, flags | getattr(os, "O_NONBLOCK", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "no ordinary file")
    return descriptor


def _locate(name_or_path: str | Path) -> Path:
    """Return the path of weights that are there and may be safetensors."""
    path = Path(name_or_path)
    if isinstance(name_or_path, str) and not path.suffix and len(path.parts) == 1:
        path = SHIPPED / f"{name_or_path}{ENDING}"
    if path.suffix.lower() in _PICKLE_ENDINGS:
        raise _no_safetensors(f"files ending in {path.suffix.lower()} can run code when they are opened")
    if not path.exists():
        known = ", ".join(shipped()) or "none"
        raise WeightsError("MDL-MISSING", "there are no such weights", f"Shipped: {known}; or give the path of a {ENDING} file.")
    if path.suffix != ENDING:
        raise _no_safetensors("it has another ending")
    return path


def _build(manifest: Manifest, tensors: Mapping[str, Tensor]) -> nn.Module:
    """Build the manifest's network once its names and shapes are known to be those of the tensors.

    The first build is without memory: a manifest could ask for a network larger than the machine.
    """
    try:
        with torch.device("meta"):
            wanted = networks.build(manifest.network, manifest.config).state_dict()
    except UsageError as error:
        raise WeightsError(
            "MDL-MANIFEST", f"the manifest names no network that is known here: {error.fact}", error.hint
        ) from error
    _refuse_shapes({name: tuple(tensor.shape) for name, tensor in wanted.items()}, tensors)
    with torch.random.fork_rng(devices=[]):  # the first weights are random, the caller's random numbers are not ours to draw
        return networks.build(manifest.network, manifest.config)


def _refuse_shapes(wanted: Mapping[str, tuple[int, ...]], tensors: Mapping[str, Tensor]) -> None:
    missing = [f"{name} is missing" for name in wanted if name not in tensors]
    strange = [f"{name} does not belong" for name in tensors if name not in wanted]
    shapes = {name: tuple(tensors[name].shape) for name in wanted if name in tensors}
    wrong = [f"{name} has shape {shape} instead of {wanted[name]}" for name, shape in shapes.items() if shape != wanted[name]]
    if problems := missing + strange + wrong:
        raise WeightsError(
            "MDL-SHAPE",
            f"{len(problems)} tensor(s) do not fit the network: {_first(problems)}",
            "Take weights and manifest from one training, and the version of medrecon that wrote them.",
        )


def _refuse_values(tensors: Mapping[str, Tensor]) -> None:
    if broken := [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]:
        raise WeightsError(
            "MDL-VALUE",
            f"{len(broken)} tensor(s) hold values that are not finite: {_first(broken)}",
            "The training diverged or the file is damaged; take an earlier checkpoint.",
        )


def _refuse_size(file_bytes: int, limits: Limits) -> None:
    most = min(limits.file_bytes, int(limits.volume_share * free_memory_bytes()))
    if file_bytes > most:
        raise WeightsError("MDL-HEADER", f"the file has {file_bytes} bytes, at most {most} are read", "Use a smaller network.")


def _first(items: list[str]) -> str:
    return "; ".join(items[:_LISTED]) + (f"; and {len(items) - _LISTED} more" if len(items) > _LISTED else "")


def _no_safetensors(why: str) -> WeightsError:
    return WeightsError(
        "MDL-FORMAT", f"this is no safetensors file: {why}", "Only safetensors are opened; convert it where it was made."
    )
