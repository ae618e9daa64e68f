"""The plugin for napari: what ``napari.yaml`` names. napari calls it; nothing here imports napari.

Only the widget, which napari makes in its own window, imports magicgui and napari, when it is made.
"""
