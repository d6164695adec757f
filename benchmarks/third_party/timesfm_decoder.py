"""TimesFM 2.5, a decoder over patches of a time series, small; its norms start at zero, so all weights are drawn."""

from dataclasses import replace

import torch
from timesfm.timesfm_2p5.timesfm_2p5_torch import TimesFM_2p5_200M_torch_module as TimesFM
from torch import Tensor, nn

from leakcheck import Inputs

FULL = TimesFM.config
WIDTHS = {"hidden_dims": 32, "output_dims": 32}
LAYER = replace(FULL.stacked_transformers.transformer, model_dims=32, hidden_dims=32, num_heads=4)


class Small(TimesFM):
    config = replace(
        FULL,
        input_patch_len=8,
        output_patch_len=16,
        output_quantile_len=16,
        tokenizer=replace(FULL.tokenizer, input_dims=16, **WIDTHS),
        stacked_transformers=replace(FULL.stacked_transformers, num_layers=2, transformer=LAYER),
        output_projection_point=replace(FULL.output_projection_point, input_dims=32, **WIDTHS),
        output_projection_quantiles=replace(FULL.output_projection_quantiles, input_dims=32, **WIDTHS),
    )


class Observed(nn.Module):
    """All values are observed: nothing is masked."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Small()

    def forward(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        (_, _, points, quantiles), _ = self.net(patches, torch.zeros_like(patches, dtype=torch.bool))
        return points, quantiles


def build() -> tuple[nn.Module, Inputs]:
    net = Observed()
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.2)
    return net, Inputs({"patches": "float[batch, time, 8]"})
