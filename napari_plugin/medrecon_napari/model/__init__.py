"""What the panel does, without Qt: states, jobs, child processes, settings as form fields, estimates, words.

Everything here is tested without a window. The widgets in `medrecon_napari.panel` show it and hand in what was pressed.
"""
