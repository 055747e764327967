"""The napari plugin: reading and writing scans, viewing them as a radiologist does, and measuring in millimetres.

It talks to the engine through its public API and, for long work, through the command line in a child process, so that
torch is never loaded in the window's process. Nothing here decides anything about geometry: it shows what the engine
says, and where napari cannot show it as it is, the layer's notes say so.
"""
