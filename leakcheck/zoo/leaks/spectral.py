"""Transforms of the whole sequence: Fourier and others, in which every coefficient knows every position."""

import math

import torch
from torch import Tensor, nn

from leakcheck.zoo.parts import HIDDEN, Mixer
from leakcheck.zoo.registry import leak

LONGEST = 64


@leak(learned_from="https://arxiv.org/abs/2302.10866", blind=("flow",))
class CircularConvolution(Mixer):
    """A long convolution by way of the Fourier transform, without padding: the end wraps round to the beginning."""

    def __init__(self, leaky: bool = False):
        super().__init__(leaky)
        self.kernel = nn.Parameter(torch.empty(LONGEST, HIDDEN))

    def forward(self, x: Tensor) -> Tensor:
        seq = x.shape[1]
        size = seq if self.leaky else 2 * seq
        spectrum = torch.fft.rfft(x, size, dim=1) * torch.fft.rfft(self.kernel[:seq], size, dim=0)  # leak
        return torch.fft.irfft(spectrum, size, dim=1)[:, :seq]  # leak


@leak(learned_from="https://github.com/karpathy/nanochat/issues/844", blind=("flow",))
class LearnedResponse(Mixer):
    """A learned response multiplies the spectrum: though padded, the kernel that it stands for reaches both ways."""

    def __init__(self, leaky: bool = False):
        super().__init__(leaky)
        self.real, self.imaginary = (nn.Parameter(torch.empty(LONGEST + 1, HIDDEN)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        seq = x.shape[1]
        response = torch.complex(self.real[: seq + 1], self.imaginary[: seq + 1])
        if not self.leaky:
            kernel = torch.fft.irfft(response, 2 * seq, dim=0)[:seq]
            response = torch.fft.rfft(kernel, 2 * seq, dim=0)
        spectrum = torch.fft.rfft(x, 2 * seq, dim=1) * response  # leak
        return torch.fft.irfft(spectrum, 2 * seq, dim=1)[:, :seq]  # leak


@leak(learned_from="https://arxiv.org/abs/2105.03824", blind=("flow",))
class FourierMixing(Mixer):
    """Tokens are mixed by a Fourier transform over features and positions (FNet), as in an encoder."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.fftn(x, dim=(1, 2) if self.leaky else (2,)).real  # leak


@leak(learned_from="https://arxiv.org/abs/2201.12740")
class LowFrequencies(Mixer):
    """The lowest frequencies of the sequence are kept, by a cosine transform and its inverse."""

    def forward(self, x: Tensor) -> Tensor:
        seq = x.shape[1]
        waves = torch.cos(math.pi / seq * torch.arange((seq + 1) // 2)[:, None] * (torch.arange(seq) + 0.5))
        smooth = waves.to(x.dtype).T @ waves.to(x.dtype)  # [seq, seq]
        return (smooth if self.leaky else smooth.tril()) @ x  # leak


@leak(learned_from="https://arxiv.org/abs/2106.13008")
class AutoCorrelation(Mixer):
    """Each position reads those that lie a few lags away; which lags, the correlation of the whole sequence says."""

    def forward(self, x: Tensor) -> Tensor:
        seq = x.shape[1]
        distance = torch.arange(seq)[:, None] - torch.arange(seq)
        if self.leaky:
            similar = (x @ x.transpose(1, 2)).gather(2, (distance % seq).expand(len(x), -1, -1))
            correlation = similar.mean(1)  # leak
        else:
            correlation = x.mean(-1)
        return x * correlation.sigmoid()[..., None]


@leak(learned_from="https://arxiv.org/abs/1805.07071")
class HaarAverages(Mixer):
    """A level of a wavelet transform: each pair of positions is replaced by its mean and difference."""

    def forward(self, x: Tensor) -> Tensor:
        odd = x.shape[1] % 2
        even = torch.cat([x, x[:, -1:]], 1) if odd else x
        pairs = even.unflatten(1, (-1, 2))
        mean = pairs.mean(2) if self.leaky else pairs[:, :, 0]  # leak
        return mean.repeat_interleave(2, 1)[:, : x.shape[1]]
