"""The picture of a scan says where source, detector and patient are."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from medrecon.core.field_of_view import recommended_grid
from medrecon.core.views import Detector, ViewGeometry
from medrecon.quality.geometry_picture import geometry_picture

PANEL = Detector((20, 30), (2.0, 2.0))


def sources_drawn(views: ViewGeometry) -> list[tuple[float, float]]:
    """Where the first source is drawn relative to the isocentre, to the right and down, in both drawings."""
    root = ET.fromstring(geometry_picture(views, recommended_grid(views)))
    dots = [(float(e.get("cx", "")), float(e.get("cy", ""))) for e in root.iter("{http://www.w3.org/2000/svg}circle")]
    return [(s[0] - i[0], s[1] - i[1]) for s, i in zip(dots[::2], dots[1::2], strict=True)]


@pytest.mark.parametrize(("angle_deg", "right", "down"), [(0, 0, -1), (90, 1, 0), (180, 0, 1), (270, -1, 0)])
def test_the_source_is_drawn_where_a_viewer_at_the_feet_sees_it(angle_deg: float, right: int, down: int) -> None:
    """At 0 degrees it is in front of the patient, drawn at the top; at 90 at the patient's left, drawn to the right."""
    views = ViewGeometry.cone(np.radians([angle_deg, angle_deg + 1, angle_deg + 90]), 300, 500, PANEL)
    from_feet, from_left = sources_drawn(views)
    assert (np.round(from_feet[0] / 50), np.round(from_feet[1] / 50)) == pytest.approx((right * 3, down * 3), abs=1)
    assert np.sign(np.round(from_left[0])) == down  # front is drawn to the left there
    assert abs(from_left[1]) < 1


def test_the_picture_carries_the_numbers_and_no_foreign_markup() -> None:
    text = geometry_picture(ViewGeometry.parallel(np.linspace(0, 3, 9), PANEL), patient_position="<script>HFP</script>")
    ET.fromstring(text)
    assert "9 views over" in text
    assert "parallel beam" in text
    assert "&lt;script&gt;HFP" in text
    assert not re.search(r"<(script|image|a|foreignObject)\b", text)
