"""The report: one page that loads nothing, says what it must, and holds no text of a header."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from medrecon.core.findings import Finding, Verdict
from medrecon.core.provenance import RESEARCH_LABEL
from medrecon.quality.report import number, render
from tests.makers_report import ball_result, noise_result

POISON = ("DOE^JANE", "PID-4711", "19700131", "St. Elsewhere", "1.2.840.99999.7")
HEADER = {
    "00100010": {"vr": "PN", "Value": [{"Alphabetic": POISON[0]}]},
    "00100020": {"vr": "LO", "Value": [POISON[1]]},
    "00100030": {"vr": "DA", "Value": [POISON[2]]},
    "00080080": {"vr": "LO", "Value": [POISON[3]]},
    "00200052": {"vr": "UI", "Value": [POISON[4]]},
    "00281050": {"vr": "DS", "Value": [40.0]},
    "00281051": {"vr": "DS", "Value": [350.0]},
}


class Page(HTMLParser):
    """A page as another parser sees it: tags with attributes, and the text outside of style."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in {"meta", "img"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def loads(html: str) -> list[str]:
    """Everything that a browser would fetch or run."""
    page = Page(html)
    outside = [
        v for _, a in page.tags for k, v in a.items() if k in {"src", "href", "srcset", "data"} and not v.startswith("data:")
    ]
    active = [tag for tag, _ in page.tags if tag in {"script", "link", "iframe", "object", "embed", "base", "form"}]
    handlers = [k for _, a in page.tags for k in a if k.startswith("on")]
    return outside + active + handlers + re.findall(r"url\(|@import|https?://", html)


@pytest.fixture(scope="module")
def html() -> str:
    return render(ball_result(header=HEADER, metrics={"psnr_db": 31.25, "cubic_psnr_db": 30.0}))


def test_the_page_loads_and_runs_nothing(html: str) -> None:
    assert loads(html) == []
    policies = [a["content"] for tag, a in Page(html).tags if tag == "meta" and a.get("http-equiv") == "Content-Security-Policy"]
    assert len(policies) == 1
    assert policies[0].startswith("default-src 'none'")


@pytest.mark.parametrize(
    "piece", ['<img src="x.png">', "<script>1</script>", '<a href="https://x">x</a>', '<p onclick="x">x</p>']
)
def test_the_check_sees_what_would_be_loaded(html: str, piece: str) -> None:
    assert loads(html.replace("<main>", f"<main>{piece}"))


def test_the_page_is_closed_properly(html: str) -> None:
    assert Page(html).open == []


def test_the_largest_page_is_below_five_megabytes() -> None:
    assert len(render(noise_result()).encode()) < 5e6


def test_the_research_label_stands_first_and_last(html: str) -> None:
    text = Page(html).text
    assert text.removeprefix("Reconstruction report").strip().startswith(RESEARCH_LABEL)
    assert text.endswith(RESEARCH_LABEL)


def test_no_text_of_the_header_reaches_the_page(html: str) -> None:
    assert [secret for secret in POISON if secret in html] == []


def test_the_window_of_the_series_is_used_and_said(html: str) -> None:
    assert "Window \u2212135 to 215 HU" in Page(html).text


def test_findings_stand_there_in_words_and_numbers_and_cannot_inject() -> None:
    nasty = "<script>alert('x')</script> & more"
    finding = Finding("DCM-TILT", Verdict.WARN, nasty, {"tilt_deg": 17.25, "pair": [3, 4]}, hint="<b>bold</b>")
    html = render(ball_result(findings=(finding,)))
    assert loads(html) == []
    text = Page(html).text
    assert nasty in text
    assert "<b>bold</b>" in text
    assert "DCM-TILT" in text
    assert "tilt, ° 17.25" in text
    assert "pair 3, 4" in text


@pytest.mark.parametrize(
    ("verdict", "allow", "word"),
    [(Verdict.WARN, "", "with care"), (Verdict.REFUSED, "missing-slices", "must not be relied on"), (Verdict.OK, "", "Nothing")],
)
def test_the_verdict_is_the_first_thing_said(verdict: Verdict, allow: str, word: str) -> None:
    html = render(ball_result(findings=(Finding("DCM-GAP", verdict, "a fact", allow=allow),)))
    start = Page(html).text[:400]
    assert str(verdict) in start
    assert word in start


def test_the_geometry_that_came_in_is_told(html: str) -> None:
    text = Page(html).text
    for said in ("Slices 12", "Matrix 40 × 36 pixels", "Pixel 1.5 × 2 mm", "Slice thickness 4 mm", "Spacing 5 mm", "Gap 1 mm"):
        assert said in text
    assert "Gantry tilt none" in text
    assert "31.25 dB" in text
    assert "1.2 dB above cubic" in text or "1.3 dB above cubic" in text


def test_every_picture_has_the_size_it_claims_and_words_for_it(html: str) -> None:
    pictures = [a for tag, a in Page(html).tags if tag == "img"]
    assert len(pictures) == 2 + 3 * 8 + 6 + 3 + 4
    for attributes in pictures:
        image = Image.open(io.BytesIO(base64.b64decode(attributes["src"].partition(",")[2])))
        assert image.size == (int(attributes["width"]), int(attributes["height"]))
        assert attributes["alt"]


def test_the_shares_of_coverage_add_up(html: str) -> None:
    match = re.search(r"measured ([\d.]+) % interpolated ([\d.]+) % not seen ([\d.]+) %", Page(html).text)
    assert match is not None
    assert sum(float(v) for v in match.groups()) == pytest.approx(100, abs=0.2)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (5.0, "5"),
        (0.6667, "0.667"),
        (-1024.0, "\u22121\u202f024"),
        (1234567, "1\u202f234\u202f567"),
        (99.96, "100"),
        (0.00012, "1.20 × 10⁻⁴"),
        (float("nan"), "not a number"),
        (True, "yes"),
        (None, "not known"),
        ([1.25, -3.0], "1.25, \u22123"),
        ("text", "text"),
    ],
)
def test_numbers_are_written_for_people(value: object, text: str) -> None:
    assert number(value) == text


def test_odd_results_are_reported_too() -> None:
    """One slice, nothing but padding, no surface, an unusable residual: the page still comes, and says so."""
    from dataclasses import replace

    result = ball_result()
    scan = replace(result.scan.take([0]), measured=np.zeros((1, 40, 36), dtype=bool))
    quality = replace(
        result.quality, residual=float("nan"), residual_rms=float("nan"), residual_map=np.zeros((1, 40, 36), np.float32)
    )
    html = render(replace(result, scan=scan, quality=quality, surfaces=()))
    assert "not a number" in Page(html).text
