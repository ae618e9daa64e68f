"""What tests of fits share: a network, a training that breaks, and a file that must not be run."""

import os

from torch import nn

from bloodseg.training import _callbacks as callbacks


class PixelNet(nn.Module):
    """A network for any size of image, as a user might bring one."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 1)

    def forward(self, x):
        return self.layer(x)


def break_in(monkeypatch, epoch, error):
    """Make the second training step of an epoch fail."""
    begin = callbacks.CosineSchedule.on_batch_begin

    def on_batch_begin(self, net, training=False, **kwargs):
        if training and len(net.history) == epoch and len(net.history[-1]["batches"]) == 2:
            raise error
        begin(self, net, training=training, **kwargs)

    monkeypatch.setattr(callbacks.CosineSchedule, "on_batch_begin", on_batch_begin)


class Bomb:
    """Unpickled, it leaves a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)
