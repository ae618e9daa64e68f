"""The classes of pixels and cells: labels, names and colours, in one place."""

CLASS_NAMES = ("background", "white", "red")
"""Names of the labels 0, 1 and 2, in the paper's order (Section 2)."""

N_CLASSES = len(CLASS_NAMES)

WHITE, RED = CLASS_NAMES.index("white"), CLASS_NAMES.index("red")

COUNT_NAMES = CLASS_NAMES[1:]
"""What is counted, in the order of the columns."""

CLASS_COLOURS = {"white": (0, 114, 178), "red": (230, 159, 0)}
"""RGB in 255ths, by name: blue and orange of Okabe and Ito, which colour-blind people tell apart.

Neither is a colour of the usual stains. https://jfly.uni-koeln.de/color/
"""

NOT_LABELLED = 255
"""Label of pixels whose class is not known: they teach nothing and are not scored."""
