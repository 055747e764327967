"""Form rows from the fields of a settings model, so that no setting needs a widget written for it.

Each row shows one field: an editor, or a choice among editors where a value can be of several kinds. A value that is no
value yet, because it is being typed, is not handed on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QSpinBox,
    QStackedWidget,
    QWidget,
)

from medrecon.core.settings import parse_value
from medrecon_napari.model.form import Editor, Field, fitting

_LARGE = 10**9
_DIGITS = 6

#: Told that something was edited.
Edited = Callable[[], None]


class SettingsForm(QWidget):
    """Rows for a list of fields.

    Parameters
    ----------
    fields : sequence of Field
    edited : callable
        Called after every edit by the user.
    """

    def __init__(self, fields: Sequence[Field], edited: Edited) -> None:
        super().__init__()
        self.rows: dict[tuple[str, ...], FieldRow] = {}
        layout = QFormLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(6)
        layout.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        layout.setLabelAlignment(Qt.AlignmentFlag.AlignLeft)
        for field in fields:
            made = FieldRow(field, edited)
            name = QLabel(f"{field.label}, {field.unit}" if field.unit else field.label)
            name.setToolTip(made.toolTip())
            self.rows[field.path] = made
            layout.addRow(name, made)

    def show_values(self, data: Mapping[str, Any]) -> None:
        """Show the values of nested plain data; nobody is told."""
        for path, row in self.rows.items():
            value: Any = data
            for key in path:
                value = value.get(key) if isinstance(value, Mapping) else None
            row.show_value(value)

    def values(self) -> dict[str, Any]:
        """Return what the rows say as nested plain data.

        Raises
        ------
        UsageError
            ``CFG-VALUE`` where something that was typed is no value.
        """
        data: dict[str, Any] = {}
        for path, row in self.rows.items():
            place = data
            for key in path[:-1]:
                place = place.setdefault(key, {})
            place[path[-1]] = row.value()
        return data


class FieldRow(QWidget):
    """The editor, or editors, of one field."""

    def __init__(self, field: Field, edited: Edited) -> None:
        super().__init__()
        self.field, self._edited = field, edited
        self._quiet = True  # until it shows its default
        self.setToolTip(field.description or field.label)
        self._editors = [_make(editor, field, self._tell) for editor in field.editors]
        self._stack = QStackedWidget()
        self._kinds = QComboBox()
        for editor, made in zip(field.editors, self._editors, strict=True):
            self._kinds.addItem(editor.label)
            self._stack.addWidget(made.widget)
            made.widget.setToolTip(self.toolTip())
            made.widget.setAccessibleName(field.label)
        self._kinds.setVisible(len(field.editors) > 1)
        self._kinds.setToolTip("How to give the value")
        self._kinds.currentIndexChanged.connect(self._kind_chosen)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._kinds)
        layout.addWidget(self._stack, 1)
        self.show_value(field.default)

    def value(self) -> Any:  # noqa: ANN401 (whatever the setting is)
        """Return the value as plain data."""
        return self._editors[self._stack.currentIndex()].get()

    def show_value(self, value: object) -> None:
        """Show a value; nobody is told."""
        self._quiet = True
        number = fitting(self.field, value)
        self._kinds.setCurrentIndex(number)
        self._stack.setCurrentIndex(number)
        self._stack.setVisible(self.field.editors[number].kind != "none" and not _is_constant(self.field.editors[number]))
        self._editors[number].put(value)
        self._quiet = False

    def _kind_chosen(self, number: int) -> None:
        self._stack.setCurrentIndex(number)
        editor = self.field.editors[number]
        self._stack.setVisible(editor.kind != "none" and not _is_constant(editor))
        self._tell()

    def _tell(self) -> None:
        if not self._quiet:
            self._edited()


class _Made:
    """A widget with how its value is read and shown."""

    def __init__(self, widget: QWidget, get: Callable[[], Any], put: Callable[[Any], None]) -> None:
        self.widget, self.get, self.put = widget, get, put


def _make(editor: Editor, field: Field, edited: Edited) -> _Made:
    """Make the widget of an editor."""
    if editor.kind == "switch":
        return _switch(edited)
    if editor.kind == "integer":
        return _integer(editor, edited)
    if editor.kind == "number":
        return _number(editor, edited)
    if editor.kind == "choice":
        return _choice(editor, edited)
    if editor.kind == "vector":
        return _vector(editor, edited)
    if editor.kind == "none":
        return _Made(QWidget(), lambda: None, lambda _: None)
    return _text(editor, field, edited)


def _switch(edited: Edited) -> _Made:
    box = QCheckBox()
    box.toggled.connect(lambda _: edited())
    return _Made(box, box.isChecked, lambda value: box.setChecked(bool(value)))


def _integer(editor: Editor, edited: Edited) -> _Made:
    box = QSpinBox()
    low = -_LARGE if editor.minimum is None else int(editor.minimum) + editor.above
    high = _LARGE if editor.maximum is None else int(editor.maximum) - editor.below
    box.setRange(low, high)
    box.setKeyboardTracking(False)
    box.valueChanged.connect(lambda _: edited())
    return _Made(box, box.value, lambda value: box.setValue(int(value or 0)))


def _number(editor: Editor, edited: Edited) -> _Made:
    box = QDoubleSpinBox()
    box.setDecimals(_DIGITS)
    least = 10.0**-_DIGITS
    low = -float(_LARGE) if editor.minimum is None else editor.minimum + least * editor.above
    high = float(_LARGE) if editor.maximum is None else editor.maximum - least * editor.below
    box.setRange(low, high)
    box.setStepType(QDoubleSpinBox.StepType.AdaptiveDecimalStepType)
    box.setKeyboardTracking(False)
    box.valueChanged.connect(lambda _: edited())
    return _Made(box, lambda: float(f"{box.value():.{_DIGITS}g}"), lambda value: box.setValue(float(value or 0.0)))


def _choice(editor: Editor, edited: Edited) -> _Made:
    box = QComboBox()
    for one in editor.choices:
        box.addItem(str(one), one)
    box.currentIndexChanged.connect(lambda _: edited())
    return _Made(box, lambda: editor.choices[box.currentIndex()], lambda value: box.setCurrentIndex(editor.choices.index(value)))


def _vector(editor: Editor, edited: Edited) -> _Made:
    holder, boxes = QWidget(), [_number(Editor("number"), edited) for _ in range(editor.length)]
    layout = QHBoxLayout(holder)
    layout.setContentsMargins(0, 0, 0, 0)
    for box in boxes:
        layout.addWidget(box.widget)

    def put(values: Sequence[float] | None) -> None:
        for box, value in zip(boxes, values or (1.0,) * editor.length, strict=True):
            box.put(value)

    put(None)
    return _Made(holder, lambda: [box.get() for box in boxes], put)


def _text(editor: Editor, field: Field, edited: Edited) -> _Made:
    """Make a line to type into; what no other editor holds is typed as YAML."""
    line = QLineEdit()
    line.editingFinished.connect(edited)
    if editor.kind == "text":
        return _Made(line, line.text, lambda value: line.setText("" if value is None else str(value)))
    line.setPlaceholderText("for example [[0, 0, 0], [50, 50, 50]]" if "lps" in field.name else "as in a YAML file")

    def get() -> Any:  # noqa: ANN401 (whatever was typed)
        return parse_value(line.text()) if line.text().strip() else None

    return _Made(line, get, lambda value: line.setText("" if value is None else str(value)))


def _is_constant(editor: Editor) -> bool:
    return editor.kind == "choice" and len(editor.choices) == 1
