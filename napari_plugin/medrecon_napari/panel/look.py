"""How the panel looks: one style sheet made from napari's theme, so that it is at home in the dark and in the light.

Green, amber and red have a shade for each; a colour never says anything alone, a word always stands beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFrame, QHBoxLayout, QLabel, QLayout, QProgressBar, QPushButton, QSizePolicy, QVBoxLayout, QWidget

Role = Literal["title", "heading", "text", "hint", "good", "note", "bad", "caption", "number"]

_MOODS = {
    "dark": {
        "good": "#6fcf97",
        "note": "#f2c14e",
        "bad": "#ff8a80",
        "accent": "#5b8def",
        "accent_text": "#ffffff",
        "muted": "#7d8590",
    },
    "light": {
        "good": "#1e7a46",
        "note": "#8a5a00",
        "bad": "#b3261e",
        "accent": "#2a5fc4",
        "accent_text": "#ffffff",
        "muted": "#9a9c9f",
    },
}
_SHEET = """
#panel QWidget {{ font-size: 10pt; }}
#panel QLabel {{ background: transparent; color: {text}; }}
#panel QLabel[role="title"] {{ font-size: 13pt; font-weight: 600; }}
#panel QLabel[role="heading"] {{ font-size: 11pt; font-weight: 600; }}
#panel QLabel[role="hint"], #panel QLabel[role="caption"] {{ color: {dim}; font-size: 9pt; }}
#panel QLabel[role="good"] {{ color: {good}; }}
#panel QLabel[role="note"] {{ color: {note}; }}
#panel QLabel[role="bad"] {{ color: {bad}; }}
#panel QWidget[role="plain"] {{ background: transparent; }}
#panel QFrame[role="job"] {{ background: {foreground}; border-radius: 6px; }}
#panel QFrame[role="step"] {{ background: {foreground}; border-radius: 8px; }}
#panel QFrame[role="card"] {{ background: {background}; border-radius: 6px; }}
#panel QFrame[role="drop"] {{ border: 1px dashed {highlight}; border-radius: 6px; background: {background}; }}
#panel QFrame[role="drop"][over="true"] {{ border: 1px solid {accent}; }}
#panel QLabel[role="number"] {{
    background: {secondary}; color: {text}; font-weight: 600; border-radius: 13px;
    min-width: 26px; max-width: 26px; min-height: 26px; max-height: 26px;
}}
#panel QLabel[role="number"][state="open"] {{ background: {accent}; color: {accent_text}; }}
#panel QLabel[role="number"][state="closed"] {{ background: {primary}; color: {dim}; }}
#panel QPushButton {{ padding: 6px 12px; border-radius: 4px; min-height: 18px; }}
#panel QPushButton[role="main"] {{
    background: {accent}; color: {accent_text}; font-weight: 600; font-size: 11pt; min-height: 24px;
}}
#panel QPushButton[role="main"]:hover {{ background: {highlight}; }}
#panel QPushButton[role="main"]:disabled {{ background: {primary}; color: {dim}; border: 0px; }}
#panel QPushButton[role="main"][does="cancel"] {{ background: {secondary}; color: {text}; }}
#panel QPushButton[role="link"] {{
    background: transparent; color: {accent_link}; padding: 2px 4px; text-align: left; border: 0px; font-size: 9pt;
}}
#panel QPushButton[role="link"]:hover {{ text-decoration: underline; }}
#panel QPushButton[role="link"]:disabled {{ color: {dim}; border: 0px; background: transparent; }}
#panel QPushButton[role="choice"] {{ background: {background}; text-align: left; padding: 8px 12px; }}
#panel QPushButton[role="choice"]:checked {{ background: {background}; border: 2px solid {accent}; padding: 6px 10px; }}
#panel QTableWidget {{ background: {background}; border: 0px; border-radius: 6px; gridline-color: transparent; }}
#panel QTableWidget::item {{ padding: 4px; }}
#panel QTableWidget::item:selected {{ background: {secondary}; color: {text}; }}
#panel QHeaderView::section {{ background: {background}; color: {dim}; font-size: 9pt; border: 0px; padding: 4px; }}
#panel QProgressBar {{ border: 0px; border-radius: 4px; background: {background}; max-height: 8px; min-height: 8px; }}
#panel QProgressBar::chunk {{ background: {accent}; border-radius: 4px; width: 1px; }}
#panel QScrollArea {{ border: 0px; background: transparent; }}
#panel QComboBox, #panel QLineEdit, #panel QAbstractSpinBox {{ min-height: 24px; padding: 1px 6px; }}
"""


def style_sheet(theme: str) -> str:
    """Return the panel's style sheet for a napari theme."""
    from napari.utils.theme import get_theme

    chosen = get_theme(theme)
    colours = {name: str(getattr(chosen, name)) for name in ("background", "foreground", "primary", "secondary", "highlight")}
    moods = moods_of(theme)
    text = str(chosen.text)
    dim = "#a9afb8" if is_dark(theme) else "#55575c"
    return _SHEET.format(**colours, **moods, text=text, dim=dim, accent_link="#8fb4ff" if is_dark(theme) else "#2a5fc4")


def moods_of(theme: str) -> dict[str, str]:
    """Return the colours that mean something, for a theme."""
    return _MOODS["dark" if is_dark(theme) else "light"]


def is_dark(theme: str) -> bool:
    """Whether a theme has light text on a dark ground."""
    from napari.utils.theme import get_theme

    return str(get_theme(theme).type) == "dark"


def label(text: str = "", role: Role = "text", tip: str = "") -> QLabel:
    """Return a label that wraps its text and can be copied from."""
    made = QLabel(text)
    made.setProperty("role", role)
    made.setWordWrap(role not in {"number", "heading"})
    made.setTextFormat(Qt.TextFormat.PlainText)
    made.setToolTip(tip)
    if role in {"bad", "note", "text"}:
        made.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    if role == "number":
        made.setAlignment(Qt.AlignmentFlag.AlignCenter)
    return made


def say(made: QLabel, text: str, role: Role | None = None) -> None:
    """Change a label's text and role; an empty one takes no room."""
    made.setText(text)
    made.setVisible(bool(text))
    if role is not None and made.property("role") != role:
        mark(made, "role", role)


def show_share(bar: QProgressBar, share: float) -> None:
    """Let a bar of 1000 parts show a finished share, when the window is painted next; Qt would paint it at once."""
    if bar.value() != round(1000 * share):
        bar.setUpdatesEnabled(False)
        bar.setValue(round(1000 * share))
        bar.setUpdatesEnabled(True)


def progress_bar() -> QProgressBar:
    """Return a thin progress bar of 1000 parts."""
    bar = QProgressBar()
    bar.setRange(0, 1000)
    bar.setTextVisible(False)
    bar.setAccessibleName("Progress")
    return bar


def button(text: str, tip: str, pressed: Callable[[], object], role: str = "") -> QPushButton:
    """Return a push button with its tooltip."""
    made = QPushButton(text)
    made.setToolTip(tip)
    made.setAccessibleName(text)
    if role:
        made.setProperty("role", role)
    if role == "link":
        made.setCursor(Qt.CursorShape.PointingHandCursor)
        made.setSizePolicy(QSizePolicy.Policy.Maximum, QSizePolicy.Policy.Fixed)
    made.clicked.connect(lambda _=False: pressed())
    return made


def card(*parts: QWidget | QLayout, role: str = "card", margin: int = 10, spacing: int = 6) -> QFrame:
    """Return a rounded frame that holds widgets and layouts, one below the other."""
    frame = QFrame()
    frame.setProperty("role", role)
    layout = QVBoxLayout(frame)
    layout.setContentsMargins(margin, margin, margin, margin)
    layout.setSpacing(spacing)
    for part in parts:
        if isinstance(part, QLayout):
            layout.addLayout(part)
        else:
            layout.addWidget(part)
    return frame


def row(*parts: QWidget | None, spacing: int = 8) -> QHBoxLayout:
    """Return widgets side by side; None stands for what room is left."""
    layout = QHBoxLayout()
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(spacing)
    for part in parts:
        if part is None:
            layout.addStretch(1)
        else:
            layout.addWidget(part)
    return layout


def mark(widget: QWidget, name: str, value: object) -> None:
    """Set a property that the style sheet looks at."""
    if widget.property(name) != value:
        widget.setProperty(name, value)
        widget.style().unpolish(widget)
        widget.style().polish(widget)
