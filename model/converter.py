"""The converter: from the encoder's space into the embedding space of the decoder.

Paper section 3; converter of the official model.py, whose parameter names these are, so that published files load.
"""

import torch
from torch import nn


class RMSNorm(nn.Module):
    """Root mean square norm with eps 1e-6, whatever the language models use; computed in float32."""

    def __init__(self, size: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x32 = x.float()
        normed = x32 * torch.rsqrt(x32.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * normed.to(x.dtype)


class Converter(nn.Module):
    """RMSNorm -> Linear -> GELU (erf) -> Linear, both with bias, shared by all slots.

    22,029,568 parameters from GPT2-Large (1280) to Llama-3-8B (4096). With `residual`, what goes in ends in a vector of
    the decoder's space, which is added to what comes out; it is all that comes out until training says more.
    """

    def __init__(self, encoder_size: int, decoder_size: int, residual: bool = False) -> None:
        super().__init__()
        self.encoder_size, self.decoder_size, self.residual = encoder_size, decoder_size, residual
        self.RMSNorm = RMSNorm(encoder_size)
        self.dense_in = nn.Linear(encoder_size, decoder_size)
        self.dense_out = nn.Linear(decoder_size, decoder_size)
        if residual:
            nn.init.zeros_(self.dense_out.weight)
            nn.init.zeros_(self.dense_out.bias)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Convert slots: [..., encoder size] (+ decoder size with `residual`) -> [..., decoder size] in float32."""
        # The work is done in the dtype of the linear layers, whatever dtype comes in (official quirk Q12).
        hidden, residual = hidden[..., : self.encoder_size], hidden[..., self.encoder_size :]
        x = self.RMSNorm(hidden.to(self.dense_in.weight.dtype))
        converted: torch.Tensor = self.dense_out(nn.functional.gelu(self.dense_in(x)))
        return converted.float() + residual.float() if self.residual else converted.float()
