"""The Llama decoder, with the parameter names and the arithmetic of Hugging Face.

Shapes: b sequences, t positions, d = hidden_size, h heads of head_dim dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rankscope.keyed import keyed_generator
from rankscope.training.config import ModelConfig
from rankscope.training.cross_entropy import next_token_loss, next_token_losses


class LanguageModel(nn.Module):
    """A decoder from token ids (b, t) to the logits of each next token, (b, t, vocab_size).

    With ``tie_word_embeddings`` the output layer and the embedding are one parameter, which gets
    the gradients of both uses and has the name of the embedding.
    """

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__()
        self.config = config
        self.model = Decoder(config, vocab_size)
        self.lm_head = nn.Linear(config.hidden_size, vocab_size, bias=False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits of the token that follows each given token."""
        return cast(Tensor, self.lm_head(self.model(tokens)))

    def loss(self, tokens: Tensor) -> Tensor:
        """Mean negative log-likelihood of ``tokens[:, 1:]``, nats per token; tokens (b, t + 1)."""
        return next_token_loss(self.model(tokens[:, :-1]), self.lm_head.weight, tokens[:, 1:])

    def token_losses(self, tokens: Tensor, counted: Tensor) -> Tensor:
        """Negative log-likelihoods in nats of those ``tokens[:, 1:]`` where the mask is true.

        Parameters
        ----------
        tokens
            Ids (b, t + 1).
        counted
            Mask (b, t). Logits are computed only where it is true.

        Returns
        -------
        One loss per true value, in row-major order; without a gradient.
        """
        hidden = self.model(tokens[:, :-1])[counted]
        return next_token_losses(hidden, self.lm_head.weight, tokens[:, 1:][counted])

    @torch.no_grad()
    def initialise(self, seed: int) -> None:
        """Draw every matrix as the configuration says, each from a generator of its own.

        ``normal`` is N(0, initializer_range²) for all matrices; ``torch`` is what PyTorch's layers
        begin with: N(0, 1) for the embedding and U(±1/sqrt(in)) for all others. The same seed
        gives the same weights, whichever method trains them.
        """
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                draw = torch.empty(parameter.shape)
                generator = keyed_generator(seed, "weight", name)
                if self.config.initialisation == "normal":
                    draw.normal_(std=self.config.initializer_range, generator=generator)
                elif name == "model.embed_tokens.weight":
                    draw.normal_(generator=generator)
                else:
                    bound = 1 / math.sqrt(parameter.shape[1])
                    draw.uniform_(-bound, bound, generator=generator)
                parameter.copy_(draw)


class Decoder(nn.Module):
    """Embedding, blocks and the final norm."""

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__()
        self.head_dim, self.rope_theta = config.head_dim, config.rope_theta
        self.embed_tokens = nn.Embedding(vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))
        self.norm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, tokens: Tensor) -> Tensor:
        """Hidden states (b, t, d)."""
        x = self.embed_tokens(tokens)
        angles = rotary_angles(tokens.shape[1], self.head_dim, self.rope_theta, x.device)
        cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        cos, sin = torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)
        for layer in self.layers:
            x = layer(x, cos, sin)
        return cast(Tensor, self.norm(x))


class Block(nn.Module):
    """Attention and MLP, each added to the residual stream."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.self_attn = Attention(config)
        self.mlp = MLP(config)
        self.input_layernorm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Hidden states in, hidden states out."""
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        return cast(Tensor, x + self.mlp(self.post_attention_layernorm(x)))


class Attention(nn.Module):
    """Causal self-attention; groups of query heads share a key head and a value head."""

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
            projection(x).unflatten(-1, (-1, self.head_dim))  # (b, t, h, head_dim)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        # Rotated before the transposition: elementwise work is faster on contiguous tensors.
        q, k, v = (y.transpose(1, 2) for y in (rotate(q, cos, sin), rotate(k, cos, sin), v))
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


def load_weights(model: LanguageModel, tensors: Mapping[str, Tensor]) -> None:
    """Load every parameter by its name; where the head is tied, the embedding is loaded for both.

    Raises
    ------
    RuntimeError
        As torch does, if a parameter is missing, unexpected or of another shape.
    """
    tied, embedding = model.config.tie_word_embeddings, tensors.get("model.embed_tokens.weight")
    both = {"lm_head.weight": embedding} if tied and embedding is not None else {}
    model.load_state_dict({**tensors, **both})


def rotary_angles(length: int, head_dim: int, theta: float, device: torch.device) -> Tensor:
    """Angle by which every position rotates every pair of coordinates.

    Returns
    -------
    (length, 1, head_dim / 2), float32; the 1 is the axis of the heads.
    """
    pairs = torch.arange(0, head_dim, 2, dtype=torch.float32, device=device)
    frequencies = 1.0 / theta ** (pairs / head_dim)
    positions = torch.arange(length, dtype=torch.float32, device=device)
    return torch.outer(positions, frequencies)[:, None]


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate each pair of coordinates of ``x`` (b, t, h, head_dim) by its position's angle.

    In Hugging Face's layout, coordinates i and i + head_dim / 2 form a pair; the original RoPE
    pairs neighbours. ``sin`` is negative in its first half.
    """
    first, second = x.chunk(2, dim=-1)
    return torch.addcmul(x * cos, torch.cat((second, first), dim=-1), sin)


def is_projection(name: str) -> bool:
    """Whether a parameter is a matrix of an attention or MLP block, rather than an embedding."""
    return name.endswith("_proj.weight")
