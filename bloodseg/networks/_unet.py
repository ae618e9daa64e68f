"""The U-Net frame (paper, Figures 5 and 6) and the networks that differ in its stages' bodies."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from .._typing import Tolerances
from ..ode import ODEBlock, Tableau, check_n_steps, pays_to_compile
from ._blocks import (
    ConvNormReLU,
    ConvODEFunction,
    Dropout,
    ResidualBlock,
    SameConv2x2,
)
from ._tolerances import resolve_tolerances

POSITIONS = tuple(range(1, 10))
"""The nine stages: 1 to 4 down the encoder, 5 the bottom of the U, 6 to 9 up the decoder."""

# First steps that calibration tries beside the solver's own choice, of the unit interval.
_FIRST_STEPS = (1 / 2, 1 / 3, 1 / 4, 1 / 5, 1 / 6, 1 / 8)

_RESIDUAL_BLOCKS = {2: 3, 3: 4, 4: 6, 5: 3}  # of ResNetUNet, by position

STRIDE = 16  # input pixels to one pixel at the bottom of the U


# What makes the body of a stage: its position, its channels.
Body = Callable[[int, int], nn.Module]


class Frame(nn.Module):
    """What all networks of the family share: the way down, and how an image goes through.

    A subclass adds what follows the encoder, in `_score`, and a layer ``head`` that gives logits;
    if others do, too, it names them in `scorers`.

    Parameters
    ----------
    n_classes, width, dropout, in_channels, precision, body
        As for `UNet`.
    positions : sequence of int
        Positions that have a stage: 1 to 5, or all nine.
    """

    head: nn.Conv2d

    def __init__(
        self,
        n_classes: int = 3,
        *,
        width: int = 32,
        dropout: float = 0.1,
        in_channels: int = 3,
        precision: str = "float32",
        body: Body | None = None,
        positions: Sequence[int] = POSITIONS[:5],
    ):
        super().__init__()
        body = make_plain_body if body is None else body
        if n_classes < 2 or width < 1 or in_channels < 1:
            raise ValueError(
                "n_classes must be at least 2, width and in_channels at least 1; "
                f"got n_classes={n_classes!r}, width={width!r}, in_channels={in_channels!r}."
            )
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1); got {dropout!r}.")
        if precision not in ("float32", "bfloat16"):
            raise ValueError(f"precision must be 'float32' or 'bfloat16'; got {precision!r}.")
        self.channels = {position: width * 2 ** compute_depth(position) for position in POSITIONS}
        self.precision = precision
        inputs = [in_channels] + [self.channels[position] for position in POSITIONS[:4]]
        inputs += [2 * self.channels[position] for position in POSITIONS[5:]]
        self.stages = nn.ModuleList(
            nn.Sequential(
                ConvNormReLU(n_in, self.channels[position]),
                _check_body(body(position, self.channels[position]), position),
            )
            for position, n_in in zip(positions, inputs, strict=False)
        )
        self.pool = nn.Sequential(nn.MaxPool2d(2), Dropout(dropout))

    @property
    def scorers(self) -> dict[str, nn.Conv2d]:
        """The 1x1 convolutions that have a row for each class, by name."""
        return {"head": self.head}

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (n, n_classes, H, W), float32, for images (n, in_channels, H, W).

        Sides of any length: what is not a multiple of 16 is padded by mirroring, by its own size
        only, and cut off again.
        """
        height, width = x.shape[-2:]
        with self.autocast(x.device.type):
            logits = self._score(x)
        return logits[..., :height, :width].float()

    def _score(self, x: Tensor) -> Tensor:
        """Return the logits of images, padded to a multiple of 16; under `autocast`."""
        raise NotImplementedError

    def _descend(
        self, x: Tensor, bottom: Callable[[Tensor], Tensor] | None = None
    ) -> Iterator[Tensor]:
        """Yield the maps of positions 1 to 5 for padded images.

        ``bottom`` is called in place of the stage at position 5.
        """
        x = x.contiguous(memory_format=torch.channels_last)
        for stage in self.stages[:4]:
            x = self._lower(stage(x))
            yield x
            x = self.pool(x)
        yield self._lower((bottom or self.stages[4])(x))

    def autocast(self, device_type: str) -> Any:
        """Return the context in which convolutions compute in the network's precision."""
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(device_type, dtype=getattr(torch, self.precision))

    def _lower(self, x: Tensor) -> Tensor:
        """Return what an ODE-block gave, in float32, as the next convolution takes it."""
        return x if self.precision == "float32" else x.to(getattr(torch, self.precision))


class UNet(Frame):
    """A U-Net of half the classic width, with a plain body at every stage or those handed in.

    Parameters
    ----------
    n_classes : int
        Number of classes.
    width : int
        Channels of the first stage; every stage scales with it. The paper's is 32.
    dropout : float
        Probability of dropout after each pooling, in [0, 1).
    in_channels : int
        Channels of the input.
    precision : {"float32", "bfloat16"}
        Precision that the convolutions compute in (autocast); the weights stay in float32.
    body : callable, optional
        ``body(position, channels)`` returns the Module that follows the first convolution of the
        stage at a position, 1 to 9: from maps (n, channels, h, w), for any h and w, to maps of the
        same shape. It is called once a stage, in that order. None makes a plain body everywhere: a
        3x3 convolution, batch normalisation, ReLU.

    Raises
    ------
    ValueError
        If a parameter is out of its range.

    Examples
    --------
    >>> import torch
    >>> from bloodseg.networks import UNet
    >>> network = UNet(width=4).eval()
    >>> network(torch.zeros(1, 3, 50, 70)).shape
    torch.Size([1, 3, 50, 70])

    Bodies of one's own: here the bottom of the U keeps its maps as they are.

    >>> from bloodseg.networks import make_plain_body
    >>> def body(position, channels):
    ...     return torch.nn.Identity() if position == 5 else make_plain_body(position, channels)
    >>> UNet(width=4, body=body).stages[4][1]
    Identity()
    """

    def __init__(
        self,
        n_classes: int = 3,
        *,
        width: int = 32,
        dropout: float = 0.1,
        in_channels: int = 3,
        precision: str = "float32",
        body: Body | None = None,
    ):
        super().__init__(
            n_classes,
            width=width,
            dropout=dropout,
            in_channels=in_channels,
            precision=precision,
            body=body,
            positions=POSITIONS,
        )
        self.upsample = nn.ModuleList(
            nn.Sequential(
                nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
                SameConv2x2(2 * self.channels[position], self.channels[position]),
            )
            for position in POSITIONS[5:]
        )
        self.head = nn.Conv2d(width, n_classes, 1)

    def _score(self, x: Tensor) -> Tensor:
        """Return the logits of images, padded to a multiple of 16; under `autocast`."""
        (last,) = deque(self.stage_maps(x), maxlen=1)
        logits: Tensor = self.head(last)
        return logits

    def stage_maps(self, x: Tensor) -> Iterator[Tensor]:
        """Yield the maps of the nine stages, from position 1 to 9; call it under `autocast`.

        Parameters
        ----------
        x : Tensor of shape (n, in_channels, H, W)
            Images as `forward` takes them.

        Yields
        ------
        Tensor of shape (n, width * 2**depth, H' / 2**depth, W' / 2**depth)
            One after the other, so that those not asked for again are freed. ``depth`` is 0 to 4
            and back to 0; H' and W' are the sides of the image, padded to a multiple of 16.
        """
        yield from self._walk(mirror_to_stride(x))

    def _walk(
        self, x: Tensor, bottom: Callable[[Tensor], Tensor] | None = None
    ) -> Iterator[Tensor]:
        """Yield the maps of the nine stages for padded images; ``bottom`` as in `_descend`."""
        skipped = []
        for maps in self._descend(x, bottom):
            skipped.append(maps)
            yield maps
        x = skipped.pop()
        for upsample, stage in zip(self.upsample, self.stages[5:], strict=False):
            x = self._lower(stage(torch.cat([skipped.pop(), upsample(x)], dim=1)))
            yield x


def make_plain_body(position: int, channels: int) -> nn.Module:
    """Return the body of a plain stage: a 3x3 convolution, batch normalisation, ReLU.

    Parameters
    ----------
    position : int
        Position of the stage; plain ones are alike.
    channels : int
        Channels of its maps.

    Returns
    -------
    Module

    Examples
    --------
    >>> from bloodseg.networks import make_plain_body
    >>> make_plain_body(5, 64)[0].out_channels
    64
    """
    return ConvNormReLU(channels, channels)


def make_residual_body(position: int, channels: int) -> nn.Module:
    """Return the body of a ResNet's stage: 3, 4, 6 and 3 residual blocks at positions 2 to 5."""
    if position not in _RESIDUAL_BLOCKS:
        return make_plain_body(position, channels)
    return nn.Sequential(*(ResidualBlock(channels) for _ in range(_RESIDUAL_BLOCKS[position])))


def _check_body(body: nn.Module, position: int) -> nn.Module:
    if not isinstance(body, nn.Module):
        raise ValueError(
            f"body must return a torch.nn.Module for each position; got {body!r} for {position}."
        )
    return body


class ResNetUNet(UNet):
    """The paper's ResNet baseline: residual blocks where D-LinkNet has them (Section 4).

    3, 4, 6 and 3 residual blocks at positions 2 to 5, the counts of a ResNet-34 encoder; plain
    elsewhere. Parameters as for `UNet`, without ``body``.

    Examples
    --------
    >>> from bloodseg.networks import ResNetUNet
    >>> sum(weight.numel() for weight in ResNetUNet().parameters())
    27277347
    """

    def __init__(self, n_classes: int = 3, **frame: Any):
        super().__init__(n_classes, body=make_residual_body, **frame)


class NODEsUNet(UNet):
    """The paper's network: a U-Net with ODE-blocks in some of its stages (Section 3.3, Figure 6).

    Parameters
    ----------
    n_classes : int
        Number of classes.
    ode_positions : sequence of int
        Which of the nine stages hold an ODE-block; empty is a plain U-Net.
    ode_tol : float, dict, tuple or "paper"
        Tolerances in training mode; see `resolve_tolerances`.
    predict_ode_tol : float, dict, tuple or "paper", optional
        Tolerances in evaluation mode; None takes ``ode_tol``.
    ode_method : str or Tableau
        Runge-Kutta method; ``"auto"`` picks one for each block by its tolerance, see
        `bloodseg.ode.solve`.
    ode_n_steps : int, optional
        Number of steps of a fixed-step method (``"euler"``, ``"midpoint"``, ``"rk4"``), which takes
        no notice of the tolerances and cannot judge its error; None is 4. Not for the others.
    ode_gradient : {"checkpoint", "direct", "adjoint"}
        See `bloodseg.ode.solve`.
    **frame
        ``width``, ``dropout``, ``in_channels``, ``precision``: as for `UNet`.

    Attributes
    ----------
    ode_blocks : dict of int to ODEBlock
        The blocks by position.

    Raises
    ------
    ValueError
        If a parameter is out of its range.

    Examples
    --------
    >>> import torch
    >>> from bloodseg.networks import NODEsUNet
    >>> network = NODEsUNet(width=4, ode_positions=(5,), ode_tol=1e-3).eval()
    >>> network(torch.zeros(1, 3, 32, 32)).shape
    torch.Size([1, 3, 32, 32])
    >>> network.ode_blocks[5].n_evaluations.shape
    (1,)
    """

    def __init__(
        self,
        n_classes: int = 3,
        *,
        ode_positions: Sequence[int] = (4, 5, 6),
        ode_tol: Tolerances = 1e-3,
        predict_ode_tol: Tolerances | None = None,
        ode_method: str | Tableau = "auto",
        ode_n_steps: int | None = None,
        ode_gradient: str = "checkpoint",
        **frame: Any,
    ):
        positions = check_positions(ode_positions)
        check_n_steps(ode_n_steps, ode_method, name="ode_n_steps")

        def make_body(position: int, channels: int) -> nn.Module:
            if position not in positions:
                return make_plain_body(position, channels)
            return ODEBlock(
                ConvODEFunction(channels),
                method=ode_method,
                n_steps=ode_n_steps,
                gradient=ode_gradient,
                name=f"ODE-block at position {position}",
            )

        super().__init__(n_classes, body=make_body, **frame)
        self._ode_positions = positions
        self.set_tolerances(ode_tol, predict_ode_tol)

    @property
    def ode_blocks(self) -> dict[int, ODEBlock]:
        """The ODE-blocks by position."""
        bodies = [stage[1] for stage in self.stages]  # type: ignore[index]
        return {position: bodies[position - 1] for position in self._ode_positions}

    def set_tolerances(
        self, ode_tol: Tolerances, predict_ode_tol: Tolerances | None = None
    ) -> None:
        """Set the tolerances of the blocks, for training and, where they differ, prediction.

        Raises
        ------
        ValueError
            If a form or a value is wrong; the tolerances then stay as they were.
        """
        train = resolve_tolerances(ode_tol, self._ode_positions)
        predict = (
            dict.fromkeys(self._ode_positions)
            if predict_ode_tol is None
            else resolve_tolerances(predict_ode_tol, self._ode_positions, name="predict_ode_tol")
        )
        for position, block in self.ode_blocks.items():
            block.tol = train[position]
            block.predict_tol = predict[position]

    @property
    def first_steps(self) -> dict[int, float | None]:
        """The first step that each block tries at its training tolerance; None: the solver's."""
        return {position: block.first_step for position, block in self.ode_blocks.items()}

    def set_first_steps(self, first_steps: Mapping[int, float | None]) -> None:
        """Set what `first_steps` gave, of this network or one of the same weights."""
        for position, block in self.ode_blocks.items():
            block.first_step = first_steps[position]

    @torch.no_grad()
    def calibrate(self, x: Tensor) -> None:
        """Find the first step with which each block needs the fewest evaluations for images.

        A block that rejects its first step time and again pays for it in each prediction. The
        steps found are settings of the model: a prediction does not change them, so it does not
        depend on those before it. Nothing else is changed, and nothing at all where it fails.

        Parameters
        ----------
        x : Tensor of shape (n, in_channels, H, W)
            Images as `forward` takes them.
        """
        blocks, found = self.ode_blocks, self.first_steps
        modes = [(module, module.training) for module in self.modules()]
        costs: dict[int, dict[float | None, float]] = {}
        self.eval()
        for block in blocks.values():
            block.training = True  # so that it, but not its function, goes by training's tolerance
        try:
            for first_step in (None, *_FIRST_STEPS):
                self.set_first_steps(dict.fromkeys(blocks, first_step))
                self(x)
                for position, block in blocks.items():
                    costs.setdefault(position, {})[first_step] = block.n_evaluations.mean()
                if first_step is None and not any(b.n_rejected.any() for b in blocks.values()):
                    break
            found = {p: min(of, key=lambda step: of[step]) for p, of in costs.items()}
        finally:
            self.set_first_steps(found)
            for module, training in modes:
                module.training = training

    def decide_compilation(self, compile: bool | str, n_pixels: int, n_samples: int) -> None:
        """Say which blocks `torch.compile` their solver's sums, from the size of the job.

        Parameters
        ----------
        compile : bool or "auto"
            For all blocks; "auto" compiles where it saves more time than it takes.
        n_pixels, n_samples : int
            Pixels of an image, and number of images that will pass through the network.
        """
        for position, block in self.ode_blocks.items():
            size = self.head.in_channels * n_pixels // 2 ** compute_depth(position)
            pays = pays_to_compile(size, n_samples)
            block.compile_mode = pays if compile == "auto" else compile


def compute_depth(position: int) -> int:
    """Return how many times a stage's maps were halved."""
    return 4 - abs(5 - position)


def check_positions(ode_positions: Any) -> tuple[int, ...]:
    """Return positions of ODE-blocks as a tuple of ints, or say what is wrong with them."""
    try:
        positions = tuple(int(position) for position in ode_positions)
        valid = list(positions) == list(ode_positions)
    except (TypeError, ValueError):
        positions, valid = (), False
    if not valid or len(set(positions)) != len(positions) or not set(positions) <= set(POSITIONS):
        raise ValueError(
            "ode_positions must hold different whole numbers from 1 to 9, or be empty for a "
            f"plain U-Net; got {ode_positions!r}."
        )
    return positions


def mirror_to_stride(x: Tensor) -> Tensor:
    """Pad below and to the right, by mirroring, to a multiple of the stride.

    The same operations for any size, so that a traced network takes any size, too; and no division
    of negative numbers, which ONNX rounds towards zero.
    """
    for axis in (-2, -1):
        side = x.shape[axis]
        padded = torch.arange((side + STRIDE - 1) // STRIDE * STRIDE, device=x.device)
        back_and_forth = padded % torch.full_like(padded, 2 * side)
        x = x.index_select(axis, torch.minimum(back_and_forth, 2 * side - 1 - back_and_forth))
    return x
