"""A training that only notes what it was given."""

import pytest

import bloodseg.estimators._base as module
from bloodseg.training import TrainingResult


@pytest.fixture
def recorded(monkeypatch):
    """Replace the training by a note of what it was given."""
    notes = []

    def train(network, train, valid, settings):
        notes.append((network, train, valid, settings))
        return TrainingResult([{"epoch": 1, "train_loss": 1.0, "valid_loss": 1.0}], 1)

    monkeypatch.setattr(module, "train_network", train)
    return notes
