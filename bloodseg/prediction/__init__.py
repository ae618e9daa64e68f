"""From images to class maps and cells: what callers pass, the network run on it, the result."""
