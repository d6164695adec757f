"""Convolutions and pools that are causal by padding, cropping or shifting."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leakcheck import flow
from leakcheck.zoo.parts import HIDDEN, Mixer
from leakcheck.zoo.registry import control

TAPS, LONGEST = 3, 64


def convolved(x: Tensor, kernel: Tensor) -> Tensor:
    """A causal convolution of `[batch, seq, hidden]` with `[seq, hidden]` by way of a padded Fourier transform."""
    size = 2 * x.shape[1]
    spectrum = torch.fft.rfft(x, size, dim=1) * torch.fft.rfft(kernel, size, dim=0)
    return torch.fft.irfft(spectrum, size, dim=1)[:, : x.shape[1]]


@control(learned_from="https://arxiv.org/abs/2302.10866", proven=False)
class FourierPadded(Mixer):
    """A long convolution by Fourier transforms of twice the length: the future cancels, up to rounding."""

    def __init__(self, leaky: bool = False):
        super().__init__(leaky)
        self.kernel = nn.Parameter(torch.empty(LONGEST, HIDDEN))

    def forward(self, x: Tensor) -> Tensor:
        return convolved(x, self.kernel[: x.shape[1]])


@control(learned_from="https://arxiv.org/abs/2111.00396")
class FourierDeclared(FourierPadded):
    """The same convolution, declared to be causal; the declaration is checked by brute force."""

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.kernel[: x.shape[1]]
        return flow.declare("causal", dim=1)(lambda t: convolved(t, kernel.to(t.dtype)))(x)


@control(learned_from="https://arxiv.org/abs/2302.10866")
class ToeplitzProduct(FourierPadded):
    """The same convolution as a product with a matrix of shifted kernels."""

    def forward(self, x: Tensor) -> Tensor:
        at = torch.arange(x.shape[1])
        lag = at[:, None] - at
        matrix = self.kernel[lag.clamp(min=0)] * (lag >= 0)[..., None]  # [to, from, hidden]
        return torch.einsum("tfh,bfh->bth", matrix, x)


@control(learned_from="https://arxiv.org/abs/1609.03499")
class DilatedStack(Mixer):
    """Layers with growing dilation, each padded on the left by its own reach."""

    def __init__(self, leaky: bool = False):
        super().__init__(leaky)
        self.layers = nn.ModuleList(nn.Conv1d(HIDDEN, HIDDEN, TAPS, dilation=2**i) for i in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = x.mT
        for i, layer in enumerate(self.layers):
            x = x + torch.tanh(layer(F.pad(x, ((TAPS - 1) * 2**i, 0))))
        return x.mT


@control(learned_from="https://arxiv.org/abs/2312.00752")
class PaddedBothSidesCropped(Mixer):
    """The kernel pads both sides; what the right side made is cut off."""

    def __init__(self, leaky: bool = False):
        super().__init__(leaky)
        self.conv = nn.Conv1d(HIDDEN, HIDDEN, TAPS, groups=HIDDEN, padding=TAPS - 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(self.conv(x.mT)[..., : x.shape[1]]).mT


@control(learned_from="https://arxiv.org/abs/1601.06759")
class KernelMasked(Mixer):
    """A symmetric kernel whose taps on the right are multiplied by zeros."""

    def __init__(self, leaky: bool = False):
        super().__init__(leaky)
        self.conv = nn.Conv1d(HIDDEN, HIDDEN, 5, padding=2)
        self.register_buffer("mask", torch.tensor([1.0, 1, 1, 0, 0]))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv1d(x.mT, self.conv.weight * self.get_buffer("mask"), self.conv.bias, padding=2).mT


@control(learned_from="https://arxiv.org/abs/2110.13711")
class ShortenedAndShifted(Mixer):
    """A strided convolution and its stretching back, shifted so that no window ends after those who read it."""

    def __init__(self, leaky: bool = False):
        super().__init__(leaky)
        self.down = nn.Conv1d(HIDDEN, HIDDEN, 2, stride=2)
        self.up = nn.ConvTranspose1d(HIDDEN, HIDDEN, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        seq = x.shape[1]
        shifted = F.pad(x.mT, (1, seq % 2))[..., : seq + seq % 2]
        return self.up(self.down(shifted))[..., :seq].mT


@control(learned_from="https://arxiv.org/abs/1803.01271")
class TransposedCropped(Mixer):
    """A transposed convolution writes to later positions; what falls behind the end is cut off."""

    def __init__(self, leaky: bool = False):
        super().__init__(leaky)
        self.conv = nn.ConvTranspose1d(HIDDEN, HIDDEN, TAPS)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x.mT)[..., : x.shape[1]].mT


@control(learned_from="https://arxiv.org/abs/1901.10430")
class KernelOfEachPosition(Mixer):
    """Each position makes its own kernel and applies it to a window that ends there."""

    def __init__(self, leaky: bool = False):
        super().__init__(leaky)
        self.kernel = nn.Linear(HIDDEN, TAPS)

    def forward(self, x: Tensor) -> Tensor:
        windows = F.pad(x, (0, 0, TAPS - 1, 0)).unfold(1, TAPS, 1)  # [batch, seq, hidden, tap]
        return (windows * self.kernel(x).softmax(-1)[:, :, None]).sum(-1)


@control(learned_from="https://github.com/RookieJunChen/FullSubNet-plus/issues/10")
class PooledSoFar(Mixer):
    """Squeeze and excitation by the largest value of a window that ends at each position."""

    def __init__(self, leaky: bool = False):
        super().__init__(leaky)
        self.gate = nn.Linear(HIDDEN, HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        pooled = F.max_pool1d(F.pad(x.mT, (TAPS - 1, 0), value=-torch.inf), TAPS, 1).mT
        return x * torch.sigmoid(self.gate(pooled))


@control(learned_from="https://arxiv.org/abs/1709.01507")
class PooledToEachPosition(Mixer):
    """An average pool whose window is as long as the sequence, over a sequence padded to nearly twice its length."""

    def forward(self, x: Tensor) -> Tensor:
        seq = x.shape[1]
        return F.avg_pool1d(F.pad(x.mT, (seq - 1, 0)), seq, 1).mT
