"""Files of weights that lie, run code or do not fit: each is refused with its code before it takes memory (M1 to M3)."""

from __future__ import annotations

import functools
import json
import os
import pickle
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medrecon import networks
from medrecon.core.errors import ExitCode, WeightsError
from medrecon.networks import weights
from tests.makers_weights import TRAINING, container, entry, put

SMALL = {"levels": 1, "channels": 4, "layers": 1}


def tensors() -> dict[str, torch.Tensor]:
    """The weights of a small network, as any trainer would hold them."""
    torch.manual_seed(0)
    return networks.build("flow", SMALL).state_dict()


def refusal(path: str | Path) -> WeightsError:
    with pytest.raises(WeightsError) as caught:
        weights.load(path)
    assert caught.value.exit_code is ExitCode.MISSING_WEIGHTS
    return caught.value


def written(folder: Path, **changed: torch.Tensor) -> Path:
    return put(folder, safetensors.torch.save({**tensors(), **changed}), config=SMALL)


class Payload:
    """What a malicious checkpoint is: an object whose unpickling leaves a marker."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return os.mkdir, (str(self.marker),)


def zipped(payload: bytes, path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", payload)


# M1: a pickle is never opened


@pytest.mark.parametrize("name", ["net.pt", "net.pth", "net.ckpt", "net.bin", "net.PT", "net.safetensors"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_pickle_is_never_opened_and_its_payload_never_runs(tmp_path: Path, name: str, packed: bool) -> None:
    marker, path = tmp_path / "marker", tmp_path / name
    put(tmp_path, b"", name)
    data = pickle.dumps(Payload(marker), protocol=2)
    if packed:
        zipped(data, path)
    else:
        path.write_bytes(data)
    assert refusal(path).code == "MDL-FORMAT"
    assert not marker.exists()


def test_the_payload_leaves_its_marker_where_something_does_unpickle_it(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Payload(tmp_path / "marker"), protocol=2))
    assert (tmp_path / "marker").exists()


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol_of_pickle_is_called_by_its_name(tmp_path: Path, protocol: int) -> None:
    path = put(tmp_path, pickle.dumps({"state_dict": [1.0] * 100}, protocol=protocol))
    assert refusal(path).code == "MDL-FORMAT"


def test_a_file_of_torch_is_refused_under_any_name(tmp_path: Path) -> None:
    torch.save(tensors(), tmp_path / "torch.pt")
    assert refusal(put(tmp_path, (tmp_path / "torch.pt").read_bytes())).code == "MDL-FORMAT"


# M2: a header that lies is judged before allocation


def numbered(count: int) -> bytes:
    return container(b"{" + b",".join(b'"t%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}' % k for k in range(count)) + b"}")


@functools.cache
def hostile_headers() -> dict[str, bytes]:
    one = entry([4], 0, 16)
    return {
        "one terabyte": container({"a": entry([1 << 38], 0, 1 << 40)}),
        "a shape beyond counting": container({"a": entry([1 << 62] * 8, 0, 16)}, bytes(16)),
        "20 000 tensors": numbered(20_000),
        "100 000 tensors": numbered(100_000),
        "overlapping tensors": container({"a": one, "b": entry([4], 8, 24)}, bytes(24)),
        "a hole": container({"a": one, "b": entry([1], 20, 24)}, bytes(24)),
        "cut data": container({"a": one}, bytes(12)),
        "more data than announced": container({"a": one}, bytes(20)),
        "a shape that its place does not hold": container({"a": entry([5], 0, 16)}, bytes(16)),
        "places in reverse": container({"a": entry([4], 16, 0)}, bytes(16)),
        "a negative side": container({"a": entry([-4], 0, 16)}, bytes(16)),
        "a true side": container({"a": {**one, "shape": [True]}}, bytes(4)),
        "a broken side": container({"a": {**one, "shape": [4.0]}}, bytes(16)),
        "an unknown type": container({"a": {**one, "dtype": "F99"}}, bytes(16)),
        "a type that is a list": container({"a": {**one, "dtype": ["F32"]}}, bytes(16)),
        "a missing place": container({"a": {"dtype": "F32", "shape": [4]}}, bytes(16)),
        "an entry that is a list": container({"a": [4]}, bytes(16)),
        "a name like a path": container({"../../a": one}, bytes(16)),
        "the same name twice": container(
            b'{"a":' + json.dumps(one).encode() + b',"a":' + json.dumps(one).encode() + b"}", bytes(16)
        ),
        "no tensors": container({}),
        "no JSON": container(b"{" + bytes(99)),
        "nesting without end": container(b'{"a":' + b"[" * 200_000),
        "a number of a million digits": container(b'{"a":' + b"9" * 1_000_000 + b"}"),
        "a header longer than the file": (1 << 20).to_bytes(8, "little") + b"{}",
        "a header of 16 exabytes": b"\xff" * 8 + b"{}",
        "nothing": b"",
        "three bytes": b"abc",
        "text": b"these are the weights of a network, in words",
    }


@pytest.mark.parametrize("case", hostile_headers())
def test_a_header_that_lies_is_refused_before_memory_is_taken_for_it(tmp_path: Path, case: str) -> None:
    path = put(tmp_path, hostile_headers()[case])
    tracemalloc.start()
    assert refusal(path).code == "MDL-HEADER"
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40 << 20


def test_the_same_bytes_with_a_true_header_are_read_to_the_end(tmp_path: Path) -> None:
    """The twin: a header that says the truth gets past the judge, up to the question whether it is this network."""
    path = put(tmp_path, container({"a": entry([4], 0, 16), "b": entry([2], 16, 24)}, bytes(24)), config=SMALL)
    assert refusal(path).code == "MDL-SHAPE"


def test_a_large_file_is_refused_by_its_header_alone(tmp_path: Path) -> None:
    path = put(tmp_path, container({"a": entry([1 << 30], 0, 1 << 32)}))
    os.truncate(path, 1 << 33)  # sparse: no bytes on the disk
    assert refusal(path).code == "MDL-HEADER"


def test_a_changed_byte_is_noticed(tmp_path: Path) -> None:
    path = written(tmp_path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert refusal(path).code == "MDL-HASH"


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.data())
def test_random_damage_ends_in_a_code_and_never_in_weights(tmp_path: Path, data: st.DataObject) -> None:
    good = safetensors.torch.save(tensors())
    at = data.draw(st.integers(0, 1500))
    bad = good[:at] + data.draw(st.binary(min_size=1, max_size=12)) + good[at + data.draw(st.integers(0, 12)) :]
    if bad == good:
        return
    path = written(tmp_path)
    path.write_bytes(bad)
    assert refusal(path).code in {"MDL-HEADER", "MDL-HASH", "MDL-FORMAT"}


# M3: weights that do not fit, and manifests that lie


def test_good_weights_are_loaded_as_they_were_saved(tmp_path: Path) -> None:
    loaded = weights.load(written(tmp_path))
    for name, tensor in loaded.module.state_dict().items():
        assert torch.equal(tensor, tensors()[name])
    assert not loaded.module.training


def test_the_first_three_tensors_that_do_not_fit_are_named(tmp_path: Path) -> None:
    path = put(tmp_path, safetensors.torch.save(tensors()), config={**SMALL, "channels": 8})
    error = refusal(path)
    assert error.code == "MDL-SHAPE"
    assert error.fact.count(" has shape ") == 3
    assert "first.0.weight has shape (4, 1, 3, 3) instead of (8, 1, 3, 3)" in error.fact
    assert "more" in error.fact


def test_missing_and_strange_tensors_are_named(tmp_path: Path) -> None:
    held = tensors()
    held["strange.weight"] = held.pop("first.0.weight")
    error = refusal(put(tmp_path, safetensors.torch.save(held), config=SMALL))
    assert error.code == "MDL-SHAPE"
    assert "first.0.weight is missing" in error.fact
    assert "strange.weight does not belong" in error.fact


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_weight_that_is_not_finite_is_named(tmp_path: Path, value: float) -> None:
    error = refusal(written(tmp_path, **{"first.0.bias": torch.tensor([0.0, value, 0.0, 0.0])}))
    assert error.code == "MDL-VALUE"
    assert "first.0.bias" in error.fact


def test_weights_that_are_not_finite_are_not_written_either(tmp_path: Path) -> None:
    network = networks.get("flow")
    config = network.settings.model_validate(SMALL)
    module = networks.build("flow", config)
    torch.nn.init.constant_(next(module.parameters()), float("nan"))
    with pytest.raises(WeightsError, match="MDL-VALUE"):
        weights.save(tmp_path / "net.safetensors", "flow", config, module, TRAINING)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "fields",
    [
        {"network": "weights"},
        {"network": "os.system"},
        {"network": "../flow"},
        {"config": {"channels": 10**9}},
        {"config": {"levels": 10**6}},
        {"config": {"unknown": 1}},
        {"sha256": "short"},
        {"parameters": -1},
        {"surprise": 1},
        {"metrics": {"psnr_db": float("nan")}},
        {"spacing_mm": [0.0, 1.0]},
    ],
    ids=lambda fields: next(iter(fields)) + " " + str(next(iter(fields.values())))[:20],
)
def test_a_manifest_that_asks_for_what_is_not_there_is_refused(tmp_path: Path, fields: dict[str, Any]) -> None:
    path = put(tmp_path, safetensors.torch.save(tensors()), **({"config": SMALL} | fields))
    assert refusal(path).code == "MDL-MANIFEST"


@pytest.mark.parametrize("text", [b"", b"[" * 100_000, b'{"network": 1, "network": 2}', b"\xff\xfe", b" " * (1 << 20), b"[]"])
def test_a_manifest_that_is_no_manifest_is_refused(tmp_path: Path, text: bytes) -> None:
    path = written(tmp_path)
    path.with_suffix(".json").write_bytes(text)
    assert refusal(path).code == "MDL-MANIFEST"


def test_missing_weights_say_what_there_is(tmp_path: Path) -> None:
    assert refusal("no_such_weights").code == "MDL-MISSING"
    assert refusal(tmp_path / "none.safetensors").code == "MDL-MISSING"
    path = written(tmp_path)
    path.with_suffix(".json").unlink()
    assert refusal(path).code == "MDL-MISSING"


def test_a_pipe_or_a_folder_in_place_of_weights_does_not_make_the_load_wait(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.safetensors")
    (tmp_path / "folder.safetensors").mkdir()
    assert refusal(tmp_path / "pipe.safetensors").code == "MDL-MISSING"
    assert refusal(tmp_path / "folder.safetensors").code == "MDL-MISSING"


def test_a_spacing_outside_the_training_is_a_warning_with_numbers(tmp_path: Path) -> None:
    path = put(tmp_path, safetensors.torch.save(tensors()), config=SMALL, spacing_mm=[0.5, 1.5], thickness_mm=[1.0, 9.0])
    manifest = weights.load(path).manifest
    findings = manifest.outside_training(spacing_mm=3.0, thickness_mm=12.0)
    assert [finding.code for finding in findings] == ["MDL-RANGE", "MDL-RANGE"]
    assert findings[0].numbers == {"spacing_mm": 3.0, "least_spacing_mm": 0.5, "most_spacing_mm": 1.5}
    assert manifest.outside_training(spacing_mm=1.0, thickness_mm=5.0) == ()


def test_loading_leaves_the_random_numbers_of_the_caller_alone(tmp_path: Path) -> None:
    path = written(tmp_path)
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    weights.load(path)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("name", networks.names())
def test_no_number_in_the_settings_of_a_network_is_without_an_upper_bound(name: str) -> None:
    """A manifest may come from anywhere; a network of a million layers must be refused before it is built."""
    schema = networks.get(name).settings.model_json_schema()
    for key, field in schema.get("properties", {}).items():
        for kind in (field, *field.get("anyOf", ()), field.get("items", {})):
            if kind.get("type") in {"integer", "number"}:
                assert {"maximum", "exclusiveMaximum", "enum"} & set(kind), key
            if kind.get("type") == "array":
                assert "maxItems" in kind, key


@pytest.mark.parametrize("name", weights.shipped())
def test_shipped_weights_pass_their_own_checks_and_tell_where_they_come_from(name: str) -> None:
    manifest = weights.load(name).manifest
    assert manifest.licence == "Apache-2.0"
    assert manifest.commands
    assert manifest.metrics


def test_all_shipped_weights_together_stay_below_20_mb() -> None:
    assert sum(path.stat().st_size for path in weights.SHIPPED.iterdir()) <= 20 << 20
