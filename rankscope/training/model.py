"""The Llama decoder, with the parameter names and the arithmetic of Hugging Face's.

Shapes: b sequences, t positions, d = hidden_size, h heads of head_dim dimensions.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rankscope.training.config import ModelConfig
from rankscope.training.keyed import keyed_generator


class LanguageModel(nn.Module):
    """A decoder of token ids (b, t) to the logits of each next token, (b, t, vocab_size)."""

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__()
        self.model = Decoder(config, vocab_size)
        self.lm_head = nn.Linear(config.hidden_size, vocab_size, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits of the token that follows each of the given ones."""
        return cast(Tensor, self.lm_head(self.model(tokens)))

    def loss(self, tokens: Tensor) -> Tensor:
        """Mean negative log-likelihood, in nats a token, of ``tokens[:, 1:]``; b x (t + 1)."""
        logits = self(tokens[:, :-1])
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())

    @torch.no_grad()
    def initialise(self, seed: int, *, std: float) -> None:
        """Draw every matrix from N(0, std²), each from its own generator.

        The same seed gives the same weights whichever method trains them.
        """
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                draw = torch.empty(parameter.shape)
                draw.normal_(std=std, generator=keyed_generator(seed, "weight", name))
                parameter.copy_(draw)


class Decoder(nn.Module):
    """Embedding, blocks and the last normalisation."""

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__()
        self.head_dim, self.rope_theta = config.head_dim, config.rope_theta
        self.embed_tokens = nn.Embedding(vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, tokens: Tensor) -> Tensor:
        """Hidden states (b, t, d)."""
        x = self.embed_tokens(tokens)
        rotation = rotary_angles(tokens.shape[1], self.head_dim, self.rope_theta, x.device)
        cos, sin = rotation.cos().to(x.dtype), rotation.sin().to(x.dtype)
        for layer in self.layers:
            x = layer(x, cos, sin)
        return cast(Tensor, self.norm(x))


class Block(nn.Module):
    """Attention and MLP, each added to the residual stream."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.self_attn = Attention(config)
        self.mlp = MLP(config)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Hidden states in, hidden states out."""
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        return cast(Tensor, x + self.mlp(self.post_attention_layernorm(x)))


class Attention(nn.Module):
    """Causal self-attention; several query heads share a key and a value head."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        d, self.head_dim = config.hidden_size, config.head_dim
        d_kv = config.num_key_value_heads * config.head_dim
        self.q_proj = nn.Linear(d, d, bias=False)
        self.k_proj = nn.Linear(d, d_kv, bias=False)
        self.v_proj = nn.Linear(d, d_kv, bias=False)
        self.o_proj = nn.Linear(d, d, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Hidden states in, hidden states out."""
        q, k, v = (
            projection(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)  # (b, h, t, head_dim)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return cast(Tensor, self.o_proj(y.transpose(1, 2).flatten(2)))


class MLP(nn.Module):
    """SwiGLU: ``down(silu(gate(x)) * up(x))``."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        d, h = config.hidden_size, config.intermediate_size
        self.gate_proj = nn.Linear(d, h, bias=False)
        self.up_proj = nn.Linear(d, h, bias=False)
        self.down_proj = nn.Linear(h, d, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Hidden states in, hidden states out."""
        return cast(Tensor, self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x)))


class RMSNorm(nn.Module):
    """``weight * x / rms(x)``, normalised in float32, or better, as Llama does."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised states, in the type of ``x``."""
        y = x.to(torch.promote_types(x.dtype, torch.float32))
        y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * y.to(x.dtype)


def rotary_angles(length: int, head_dim: int, theta: float, device: torch.device) -> Tensor:
    """Angle of every position and coordinate, (length, head_dim), float32.

    Coordinates i and i + head_dim / 2 form a pair and have the same angle, in Hugging Face's
    layout; the original RoPE pairs neighbours.
    """
    pairs = torch.arange(0, head_dim, 2, dtype=torch.float32, device=device)
    frequencies = 1.0 / theta ** (pairs / head_dim)
    angles = torch.outer(torch.arange(length, dtype=torch.float32, device=device), frequencies)
    return torch.cat((angles, angles), dim=-1)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair of coordinates of ``x`` by its position's angle."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


def is_projection(name: str) -> bool:
    """Whether a parameter is a matrix of an attention or MLP block, rather than an embedding."""
    return name.endswith("_proj.weight")
