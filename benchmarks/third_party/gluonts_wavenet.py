"""The WaveNet forecaster: tokens and features over time, and an output that begins after its receptive field."""

from gluonts.torch.model.wavenet.module import WaveNet
from torch import Tensor, nn

from leakcheck import Inputs

BINS = [i / 16 for i in range(16)]


class Teacher(nn.Module):
    """The network under teacher forcing, as its loss runs it."""

    def __init__(self) -> None:
        super().__init__()
        self.net = WaveNet(
            pred_length=4, bin_values=BINS, num_residual_channels=8, num_skip_channels=8, dilation_depth=2, num_stacks=2
        )

    def forward(self, target: Tensor, features: Tensor) -> Tensor:
        logits, _ = self.net.base_net(self.net.target_feature_embedding(target, features))
        return logits


def build() -> tuple[nn.Module, Inputs]:
    model = Teacher()
    features = f"float[batch, {model.net.num_features}, time]"
    return model, Inputs({"target": "int[batch, time] < 17", "features": features})
