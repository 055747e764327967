"""The sample sweep in a real window: opened, reconstructed with its own preset, and seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from medrecon_napari import samples
from medrecon_napari.place import Edges
from medrecon_napari.viewing import letters

from tests.gui.driver import Driver

pytestmark = [pytest.mark.gui, pytest.mark.timeout(900)]  # seconds on a quiet machine are minutes on a busy one
SWEEP = Path(__file__).resolve().parents[2] / "sample_data" / "ultrasound_sweep" / "scan"


def test_the_sample_sweep_is_opened_reconstructed_with_its_own_preset_and_seen(panel: Driver) -> None:
    panel.load(SWEEP)
    assert panel.bench.info is not None
    assert panel.bench.info.modality == "US"
    panel.click(panel.panel.load.next_button)
    buttons = panel.panel.reconstruct.presets.buttons
    assert [name for name, button in buttons.items() if button.isVisible()] == ["ultrasound"]
    assert panel.bench.config.method == "compound"
    panel.run()
    panel.until(lambda: any(layer.visible for layer in panel.layers("result")), "the volume")
    (result,) = panel.layers("result")
    assert result.scale == pytest.approx([0.5, 0.5, 0.5])
    assert not any(layer.visible for layer in panel.layers("scan")), "frames one after another have no place under the volume"
    assert letters.read(panel.viewer) == Edges("", "", "", ""), "a tracker does not know left from right"
    middle = result.data[tuple(slice(n // 3, 2 * n // 3) for n in result.data.shape)]
    assert np.ptp(middle) > 50, "vessels and muscle"


def test_the_sample_opens_as_frames_one_after_another() -> None:
    (layer,) = samples.ultrasound_sweep()
    assert layer[0].shape == (55, 144, 128)
    assert layer[1]["name"].startswith("US")
    assert any("not parallel" in note for note in layer[1]["metadata"]["notes"])
