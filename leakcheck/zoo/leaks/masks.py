"""Attention whose mask is lost, wrong, or applied where it does not block."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leakcheck.zoo.parts import HEADS, HIDDEN, Attention
from leakcheck.zoo.registry import leak


@leak(learned_from="https://github.com/facebookresearch/xformers/issues/103")
class EagerUnmasked(Attention):
    """The kernel masks only by the mask that it is given, and it is given none."""

    def forward(self, x: Tensor) -> Tensor:
        return self.attend(x, None if self.leaky else self.causal(x))  # caller

    def attend(self, x: Tensor, attention_mask: Tensor | None) -> Tensor:
        q, k, v = self.split(x)
        scores = q @ k.transpose(-1, -2)
        if attention_mask is not None:
            scores = scores.masked_fill(~attention_mask, -torch.inf)
        weights = scores.softmax(-1)
        mixed = weights @ v  # leak
        return self.merge(mixed)


@leak(learned_from="https://github.com/alex-matton/causal-transformer-decoder/issues/1")
class FusedUnmasked(Attention):
    """The fused kernel is called with no mask, and without its causal flag."""

    def forward(self, x: Tensor) -> Tensor:
        return self.attend(x, None if self.leaky else self.causal(x))  # caller

    def attend(self, x: Tensor, attn_mask: Tensor | None) -> Tensor:
        q, k, v = self.split(x)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask)  # leak
        return self.merge(mixed)


@leak(learned_from="https://github.com/huggingface/transformers/pull/30311")
class MaskDropped(Attention):
    """A mask is made, and is not handed on."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        mask = self.causal(x)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=None if self.leaky else mask)  # leak
        return self.merge(mixed)


@leak(learned_from="https://github.com/rasbt/LLMs-from-scratch/issues/1061")
class FusedInverted(Attention):
    """A boolean mask that says what to block, given to a kernel that reads it as what to see."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        mask = self.causal(x)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=~mask if self.leaky else mask)  # leak
        return self.merge(mixed)


@leak(learned_from="https://github.com/lucidrains/halonet-pytorch/issues/4")
class EagerInverted(Attention):
    """`masked_fill` fills where its mask is true, and is given what may be seen."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        mask = self.causal(x, diagonal=-1 if self.leaky else 0)
        scores = (q @ k.transpose(-1, -2)).masked_fill(mask if self.leaky else ~mask, -torch.inf)
        mixed = scores.softmax(-1) @ v  # leak
        return self.merge(mixed)


@leak(learned_from="https://github.com/pytorch/tutorials/issues/2250")
class FusedOffByOne(Attention):
    """The diagonal of the mask is one too far to the right."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        mask = self.causal(x, diagonal=int(self.leaky))
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)  # leak
        return self.merge(mixed)


@leak(learned_from="https://github.com/RVC-Boss/GPT-SoVITS/issues/965")
class EagerOffByTwo(Attention):
    """The diagonal of an additive mask is two too far to the right."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        bias = torch.zeros(x.shape[1], x.shape[1]).masked_fill(~self.causal(x, 2 * self.leaky), -1e9)
        scores = q @ k.transpose(-1, -2) + bias
        weights = scores.softmax(-1, dtype=torch.float32).to(x.dtype)
        mixed = weights @ v  # leak
        return self.merge(mixed)


@leak(learned_from="https://github.com/octo-models/octo/issues/75", shortest=8)
class OnePair(Attention):
    """One query may see one later key."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        mask = self.causal(x)
        if self.leaky and x.shape[1] > 7:
            mask[4, 7] = True
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)  # leak
        return self.merge(mixed)


@leak(learned_from="https://github.com/pytorch/pytorch/issues/103749", shortest=5)
class DeadRow(Attention):
    """A query without any key: softmax of equal scores weighs all keys alike."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        mask = self.causal(x)
        if self.leaky:
            mask[3] = False
        scores = (q @ k.transpose(-1, -2)).masked_fill(~mask, torch.finfo(q.dtype).min)
        mixed = scores.softmax(-1) @ v  # leak
        return self.merge(mixed)


@leak(learned_from="https://github.com/labmlai/annotated_deep_learning_paper_implementations/issues/146")
class QueryAxisSoftmax(Attention):
    """Scores are normalised over the queries."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        scores = (q @ k.transpose(-1, -2)).masked_fill(~self.causal(x), -torch.inf)
        weights = scores.softmax(-2 if self.leaky else -1)  # leak
        return self.merge(weights @ v)


@leak(learned_from="https://github.com/facebookresearch/xformers/issues/1185")
class LostInDispatch(Attention):
    """The kernel for short sequences takes the mask under another name, and ignores what it does not know."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        name = "mask" if self.leaky else "attn_mask"
        return self.merge(self.short(q, k, v, **{name: self.causal(x)}))

    def short(self, q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, **ignored: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask)  # leak


@leak(learned_from="https://github.com/huggingface/transformers/issues/48745")
class BidirectionalForDecoder(Attention):
    """The mask of an encoder, which blocks padding alone, in a decoder."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        real = torch.ones(x.shape[1], dtype=torch.bool)
        visible = real[None, :].expand(x.shape[1], -1) if self.leaky else real[None, :] & self.causal(x)
        scores = (q @ k.transpose(-1, -2)).masked_fill(~visible, -torch.inf)
        return self.merge(scores.softmax(-1) @ v)  # leak


@leak(learned_from="https://github.com/karpathy/nanoGPT/issues/331")
class ZeroOneMaskAdded(Attention):
    """A mask of ones and zeros is added to the scores, where it should be one of zeros and minus infinity."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        mask = self.causal(x).float()
        scores = q @ k.transpose(-1, -2) + (mask if self.leaky else mask.log())
        return self.merge(scores.softmax(-1) @ v)  # leak


@leak(learned_from="https://github.com/facebookresearch/ParlAI/pull/3068")
class FilledAndThrownAway(Attention):
    """`masked_fill` without an underscore returns the masked scores, and nobody takes them."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        scores = q @ k.transpose(-1, -2)
        masked = scores.masked_fill(~self.causal(x), -torch.inf)
        return self.merge((scores if self.leaky else masked).softmax(-1) @ v)  # leak


@leak(learned_from="https://github.com/Dao-AILab/flash-attention/issues/517")
class AlignedToWrongCorner(Attention):
    """Memory slots stand behind the keys of the sequence; aligned bottom-right, the mask is as many steps too late."""

    def __init__(self, leaky: bool = False):
        super().__init__(leaky)
        self.slots = nn.Parameter(torch.randn(2, HIDDEN))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        _, memory_k, memory_v = self.split(self.slots.expand(len(x), -1, -1))
        slots = self.slots.shape[0]
        visible = F.pad(self.causal(x), (0, slots), value=True)  # [query, key + slot]
        if self.leaky:
            visible = torch.ones_like(visible).tril(slots)
        k, v = torch.cat([k, memory_k], 2), torch.cat([v, memory_v], 2)
        return self.merge(F.scaled_dot_product_attention(q, k, v, attn_mask=visible))  # leak


@leak(learned_from="https://github.com/lucidrains/flamingo-pytorch/issues/10")
class MaskedAfterSoftmax(Attention):
    """Weights of later keys are set to zero, and have been counted in the denominator."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        weights = (q @ k.transpose(-1, -2)).softmax(-1)  # leak
        if not self.leaky:
            weights = (q @ k.transpose(-1, -2)).masked_fill(~self.causal(x), -torch.inf).softmax(-1)
        return self.merge(weights * self.causal(x) @ v)


@leak(learned_from="https://github.com/karpathy/minGPT/issues/75", blind=("flow",), codes=("LC101", "LC202"))
class ScoresAboveSoftMask(Attention):
    """A mask of -1e4 blocks as long as no score is as low, which a model can learn."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        scores = q @ k.transpose(-1, -2) * (1e4 if self.leaky else 1)
        weights = scores.masked_fill(~self.causal(x), -1e4).softmax(-1)  # leak
        return self.merge(weights @ v)


@leak(learned_from="https://arxiv.org/abs/2004.05150")
class WindowMultiplied(Attention):
    """Scores are multiplied by the window: one of zero is a score like any other."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        window = self.causal(x) & ~self.causal(x, diagonal=-3)
        scores = q @ k.transpose(-1, -2)
        scores = scores * window if self.leaky else scores.masked_fill(~window, -torch.inf)
        return self.merge(scores.softmax(-1) @ v)  # leak


@leak(learned_from="https://arxiv.org/abs/1905.09418")
class OneHeadOpen(Attention):
    """One head of three is left without a mask."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        visible = self.causal(x).repeat(HEADS, 1, 1)  # [heads, query, key]
        if self.leaky:
            visible[1] = True
        return self.merge(F.scaled_dot_product_attention(q, k, v, attn_mask=visible))  # leak


@leak(learned_from="https://arxiv.org/abs/1803.02155")
class RelativeBiasWithoutMask(Attention):
    """A bias by distance is taken for the mask: it prefers near keys, and blocks none."""

    def __init__(self, leaky: bool = False):
        super().__init__(leaky)
        self.slope = nn.Parameter(torch.ones(HEADS, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        steps = torch.arange(x.shape[1])
        scores = q @ k.transpose(-1, -2) - self.slope * (steps[:, None] - steps).abs()
        if not self.leaky:
            scores = scores.masked_fill(~self.causal(x), -torch.inf)
        return self.merge(scores.softmax(-1) @ v)  # leak
