"""Step 4: where the result goes, in which formats, with or without the patient; and how to do it all again."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtGui import QGuiApplication
from qtpy.QtWidgets import QCheckBox, QFileDialog, QGridLayout, QLineEdit, QVBoxLayout, QWidget

from medrecon_napari.model.jobs import Job
from medrecon_napari.model.runs import RunState
from medrecon_napari.model.workbench import Message, Workbench
from medrecon_napari.panel.hooks import Hooks
from medrecon_napari.panel.look import button, card, label, progress_bar, row, say, show_share
from medrecon_napari.panel.results_box import ResultsBox

#: Formats by the name of the command line: what they are called, what they are for, and whether they are chosen at first.
_FORMATS = {
    "dicom": ("DICOM series", "For the archive: a derived series beside its source, marked as research use", True),
    "nifti": ("NIfTI", "The volume for research programs", True),
    "stl": ("STL", "Surfaces for 3D printing, in mm and LPS", True),
    "report": ("Report", "A page with pictures, numbers and warnings that any browser opens", True),
    "dicom_stl": ("STL in DICOM", "Surfaces for the archive", False),
    "nrrd": ("NRRD", "The volume for 3D Slicer", False),
    "mha": ("MetaImage", "The volume for ITK programs", False),
    "ply": ("PLY", "Surfaces", False),
    "obj": ("OBJ", "Surfaces", False),
    "glb": ("GLB", "Surfaces for web pages and presentations", False),
    "3mf": ("3MF", "Surfaces for 3D printing, with their unit", False),
    "vtp": ("VTP", "Surfaces for ParaView", False),
    "maps": ("Maps", "Coverage and residual, as NIfTI", False),
}
_COLUMNS = 3
_LAST_FOLDER = "last export"
_LABEL = "Every file says: research use, not for diagnosis."
_FACES = "Names, dates and numbers are removed or replaced in DICOM files. A face can still be recognised from a head scan."


class ExportStep(QWidget):
    """The content of step 4.

    Parameters
    ----------
    bench : Workbench
    hooks : Hooks
    """

    def __init__(self, bench: Workbench, hooks: Hooks) -> None:
        super().__init__()
        self.bench = bench
        self.results = ResultsBox(bench, hooks, "Which result is exported")
        self.formats = {name: _switch(title, meaning, on) for name, (title, meaning, on) in _FORMATS.items()}
        self.folder = QLineEdit(str(bench.memory.get(_LAST_FOLDER, "")))
        self.folder.setPlaceholderText("Choose a folder…")
        self.folder.setToolTip("Files go into a folder of their own in here")
        self.browse = button("Choose…", "Choose the folder to export to", self._ask_folder)
        self.anonymise = _switch("Remove the patient's identity", _FACES, on=False)
        self.faces = label(_FACES, "note")
        self.overwrite = _switch("Replace an earlier export of the same series", "Off: an earlier export stays", on=False)
        self.export_button = button("Export", "Write the files", self.export, "main")
        self.progress = progress_bar()
        self.state = label("", "hint")
        self.copy_button = button(
            "Copy as command line", "Copy the command that made this result, exactly as it was run", self.copy, "link"
        )
        self.save_button = button(
            "Save settings…", "Save the settings as a YAML file for medrecon run --config", self._ask_save, "link"
        )
        self._lay_out()
        say(self.faces, "")
        self.anonymise.toggled.connect(lambda on: say(self.faces, _FACES if on else ""))
        for part in (*self.formats.values(),):
            part.toggled.connect(lambda _: self.refresh())
        self.folder.textChanged.connect(lambda _: self.refresh())
        self.results.changed.connect(self.refresh)
        hooks.connect(bench.jobs.changed, self.refresh)
        hooks.connect(bench.facts_changed, self.refresh)
        self.refresh()

    def wanted(self) -> tuple[str, ...]:
        """Return the chosen formats."""
        return tuple(name for name, switch in self.formats.items() if switch.isChecked())

    def export(self) -> None:
        """Export the chosen result."""
        result = self.results.chosen()
        if result is None or self._why_not() or self.bench.jobs.running("export") is not None:
            return
        folder = Path(self.folder.text().strip()).expanduser()
        self.bench.memory[_LAST_FOLDER] = str(folder)
        self.bench.export(result, folder, self.wanted(), self.anonymise.isChecked(), self.overwrite.isChecked())

    def copy(self) -> str:
        """Copy the command that made the chosen result; return it."""
        result = self.results.chosen()
        if result is None:
            return ""
        QGuiApplication.clipboard().setText(result.command_line)
        self.bench.said.emit(Message("good", "The command is on the clipboard, exactly as it was run."))
        return result.command_line

    def save_settings(self, path: Path) -> None:
        """Save the settings of the chosen result, or those of step 2, as YAML."""
        result = self.results.chosen()
        config = self.bench.config if result is None or result.recipe is None else result.recipe.config
        try:
            path.write_text(config.to_yaml(), encoding="utf-8")
        except OSError as error:
            text = f"The settings could not be saved ({type(error).__name__}). Choose another folder."
            self.bench.said.emit(Message("bad", text, "OUT-WRITE"))
            return
        self.bench.said.emit(Message("good", f"Saved. Use it with: medrecon run --config {path.name}"))

    def summary(self) -> str:
        """Say in a line what was exported."""
        count = len(self.bench.exported)
        return f"{count} result{'s' if count > 1 else ''} exported" if count else ""

    def refresh(self) -> None:
        """Show what can be exported now."""
        result, job, why = self.results.chosen(), self.bench.jobs.running("export"), self._why_not()
        self.export_button.setEnabled(result is not None and job is None and not why)
        self.export_button.setText("Exporting…" if job is not None else "Export")
        self.export_button.setToolTip(why or "Write the files")
        self.copy_button.setEnabled(result is not None)
        self.progress.setVisible(job is not None)
        if job is not None:
            show_share(self.progress, job.fraction)
        say(self.state, job.in_words() if job is not None else why or _last_export(self.bench), "hint")

    def _why_not(self) -> str:
        if not self.wanted():
            return "Choose at least one format."
        return "" if self.folder.text().strip() else "Choose a folder to export to."

    def _lay_out(self) -> None:
        grid = QGridLayout()
        grid.setSpacing(6)
        for number, switch in enumerate(self.formats.values()):
            grid.addWidget(switch, number // _COLUMNS, number % _COLUMNS)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(10)
        where = card(label("Where", "caption"), row(self.folder, self.browse), self.overwrite)
        what = card(label("What", "caption"), grid)
        who = card(label("Patient", "caption"), self.anonymise, self.faces, label(_LABEL, "hint"))
        for part in (self.results, what, where, who, self.export_button, self.progress, self.state):
            layout.addWidget(part)
        layout.addLayout(row(self.copy_button, self.save_button, None))

    def _ask_folder(self) -> None:
        path = QFileDialog.getExistingDirectory(self, "Export to", self.folder.text() or str(Path.home()))
        if path:
            self.folder.setText(path)

    def _ask_save(self) -> None:
        path, _ = QFileDialog.getSaveFileName(self, "Save settings", "medrecon.yaml", "YAML (*.yaml)")
        if path:
            self.save_settings(Path(path))


def _switch(title: str, tip: str, on: bool) -> QCheckBox:
    box = QCheckBox(title)
    box.setChecked(on)
    box.setToolTip(tip)
    return box


def _last_export(bench: Workbench) -> str:
    done = [job for job in bench.jobs if job.kind == "export" and job.state is RunState.FINISHED]
    return f"Exported to {_folder(done[-1])}" if done else ""


def _folder(job: Job) -> str:
    record = job.outputs.get("run")
    return "" if record is None else str(record.parent)
