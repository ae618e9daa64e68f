"""A network's forward pass that waits for the device once, and on CUDA is one launch."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..ode import ODEBlock, Tape, expect_of
from ._counting import unet_of

logger = logging.getLogger("bloodseg")

Counts = dict[int, np.ndarray]
"""Evaluations of f at each position, one number a sample."""

_KEPT = 4  # sizes of images that are remembered, with the graph of each

# Refused samples must be more than half of so many before optimism ends: each of them costs a pass
# more than without it, each of the others spares most of the waiting.
_FEW = 8

_WARM_UPS = 2  # passes before a capture: libraries choose kernels and take memory in the first

# Graphs share memory among them and the work space of libraries with each other, torch captures on
# one stream whichever thread asks, and blocks keep the counts of their last pass.
_one_at_a_time = threading.Lock()


class OptimisticPass:
    """A network as a function that does not wait for its ODE-blocks, one after the other.

    A solver asks after each step whether its error is small enough. Here all blocks take the steps
    that they expect, and one look at the end says for which samples the error control would have
    taken just these: their answers and counts are what they would have been. Only the other samples
    go through the network again, in the ordinary way.

    Nothing waits within such a pass. So on CUDA the second one for images of a size is captured as
    a graph: one launch for all its kernels. Other settings of the blocks, another precision, or
    weights that lie elsewhere make all graphs anew.

    Images go the ordinary way on a CPU, which has no waiting to spare; where the steps of a block
    cannot be expected; where hooks want to see each call of a layer; in a network that is not of
    the family; and once more than half of the samples were refused, until the settings change.

    Parameters
    ----------
    network : Module
        In evaluation mode, with the ODE-blocks that it keeps. Threads may share this object.
    optimistic : bool, optional
        Whether to be optimistic at all; None is on CUDA.
    graphs : bool
        Whether to capture graphs there.
    """

    def __init__(self, network: nn.Module, optimistic: bool | None = None, graphs: bool = True):
        self.network, self.optimistic, self.graphs = network, optimistic, graphs
        # Once: to look for them at each call takes as long as a convolution of a small image.
        self._blocks = [module for module in network.modules() if isinstance(module, ODEBlock)]
        self._turn = threading.Lock()
        self._start_anew(None)

    def __reduce__(self) -> Any:
        return type(self), (self.network, self.optimistic, self.graphs)

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> tuple[Tensor, Counts]:
        """Return the network's answer for images, and the evaluations of f."""
        if not (images.is_cuda if self.optimistic is None else self.optimistic):
            # Blocks keep the counts of their last pass; a network without any needs no turns.
            with self._turn if self._blocks else nullcontext():
                return self._go_ordinary_way(images)
        with _one_at_a_time:
            try:
                return self._go(images)
            except torch.cuda.OutOfMemoryError:
                if not any(self._graphs.values()):
                    raise
            self.graphs = False
            self._graphs.clear()  # they hold memory that the images now need
            return self._go(images)

    def _start_anew(self, settings: Any) -> None:
        self._settings = settings
        self._given_up = False
        self._n_seen, self._n_refused = 0, 0
        self._tape = Tape()
        self._graphs: OrderedDict[Any, _Graph | None] = OrderedDict()

    def _go(self, images: Tensor) -> tuple[Tensor, Counts]:
        kind, answer = _kind_of(images), None
        if (graph := self._graphs.get(kind)) is not None:
            self._graphs.move_to_end(kind)
            answer = graph.replay(images)
        settings = self._find_settings()  # while the device works
        if settings != self._settings:
            if answer is not None:
                torch.cuda.synchronize(images.device)  # the graph is about to be dropped
            graph = answer = None
            self._start_anew(settings)
        if settings is None or self._given_up:
            return self._go_ordinary_way(images)
        if answer is None and (graph := self._capture(images)) is not None:
            answer = graph.replay(images)
        tape = self._tape if graph is None else graph.tape
        if answer is None:
            answer = _take_down(tape, self.network, images)
        as_expected = tape.judge()  # the one wait
        self._n_seen += len(as_expected)
        refused = np.flatnonzero(~as_expected)
        self._n_refused += len(refused)
        if 2 * self._n_refused > max(self._n_seen, _FEW):
            self._given_up = True
            self._graphs.clear()
        if len(refused):
            self._go_again(images, refused, answer)
        return answer, self._counts()

    def _go_ordinary_way(self, images: Tensor) -> tuple[Tensor, Counts]:
        return self.network(images), self._counts()

    def _go_again(self, images: Tensor, rows: np.ndarray, answer: Tensor) -> None:
        """Give some images to the network in the ordinary way, and put in what comes out."""
        counts = [(block, block.n_evaluations, block.n_rejected) for block in self._blocks]
        on_device = torch.from_numpy(rows).to(images.device)
        answer[on_device] = self.network(images[on_device])
        for block, n_evaluations, n_rejected in counts:
            n_evaluations[rows], n_rejected[rows] = block.n_evaluations, block.n_rejected
            block.n_evaluations, block.n_rejected = n_evaluations, n_rejected

    def _counts(self) -> Counts:
        blocks: dict[int, ODEBlock] = getattr(self.network, "ode_blocks", {})
        return {position: block.n_evaluations for position, block in blocks.items()}

    def _find_settings(self) -> list[Any] | None:
        """Return all that a pass depends on beside the images; None where it cannot be one."""
        unet = unet_of(self.network)
        if unet is None or self.network.training:
            return None
        settings: list[Any] = [unet.precision]
        for module in self.network.modules():
            if module._forward_hooks or module._forward_pre_hooks:
                return None
            if isinstance(module, ODEBlock):
                if (expected := expect_of(module)) is None:
                    return None
                settings += expected, module.precision, module.compile_mode
            # A graph sees what is written into weights, but not that others take their place.
            tensors = (*module._parameters.values(), *module._buffers.values())
            settings += [None if each is None else each.data_ptr() for each in tensors]
        return settings

    def _capture(self, images: Tensor) -> _Graph | None:
        """Return a graph for images of a size that was seen before, where there can be one."""
        if not (self.graphs and images.is_cuda):
            return None
        kind, graph = _kind_of(images), None
        if kind in self._graphs:
            others = [each for each in self._graphs.values() if each is not None]
            try:
                graph = _Graph(self.network, images, others[0].pool if others else None)
            except RuntimeError as error:
                self.graphs = False
                self._graphs.clear()
                logger.warning(
                    "No CUDA graph could be captured, so prediction goes on without, slower (%s: "
                    "%s).",
                    type(error).__name__,
                    next(iter(str(error).strip().splitlines()), ""),
                )
                return None
        self._graphs[kind] = graph
        if len(self._graphs) > _KEPT:
            self._graphs.popitem(last=False)
        return graph


class _Graph:
    """A pass for images of one size, captured once.

    Parameters
    ----------
    network : Module
        Its weights stay where they lie as long as the graph is there.
    images : Tensor of shape (n, channels, H, W)
        Any of that size, on a CUDA device.
    pool : optional
        Memory to share with other graphs, none of which runs at the same time.
    """

    def __init__(self, network: nn.Module, images: Tensor, pool: Any):
        self.tape = Tape()
        self._weights = [each.detach() for each in (*network.parameters(), *network.buffers())]
        self._images = images.clone()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(images.device):
            now, aside = torch.cuda.current_stream(), torch.cuda.Stream()
            aside.wait_stream(now)
            with torch.cuda.stream(aside):
                for _ in range(_WARM_UPS):
                    _take_down(self.tape, network, self._images)
            now.wait_stream(aside)
            # The outer context goes back to this stream where a capture fails half-way.
            with (
                torch.cuda.stream(now),
                torch.cuda.graph(self._graph, pool=pool, capture_error_mode="thread_local"),
            ):
                self._answer = _take_down(self.tape, network, self._images)
        self.pool = self._graph.pool()

    def replay(self, images: Tensor) -> Tensor:
        """Return the network's answer for images, and leave on the tape what it is judged by."""
        self._images.copy_(images)
        self._graph.replay()
        return self._answer.clone()


def _take_down(tape: Tape, network: nn.Module, images: Tensor) -> Tensor:
    """Return the network's answer, and leave on the tape what it is judged by."""
    with tape.recording(images):
        answer: Tensor = network(images)
    return answer


def _kind_of(images: Tensor) -> Any:
    return images.shape, images.dtype, images.device
