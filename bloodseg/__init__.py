"""Red and white cells in blood smears: neural-ODE U-Nets behind a scikit-learn API."""
