"""The architecture of PROSE in PyTorch, for the benchmark of a training step."""

import math
from typing import Any

import torch  # pyright: ignore[reportMissingImports]
from torch import nn  # pyright: ignore[reportMissingImports]
from torch.nn import functional as F  # pyright: ignore[reportMissingImports]


class Attention(nn.Module):
    """Attention of several heads by PyTorch's fused kernel."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.q, self.kv = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x, source, mask=None, causal=False):
        b, n, w = x.shape
        cut = lambda y: y.view(b, -1, self.heads, w // self.heads).transpose(1, 2)
        k, v = self.kv(source).chunk(2, dim=-1)
        mixed = F.scaled_dot_product_attention(
            cut(self.q(x)), cut(k), cut(v), attn_mask=mask, is_causal=causal
        )
        return self.out(mixed.transpose(1, 2).reshape(b, n, w))


class Layer(nn.Module):
    """A post-norm layer."""

    def __init__(self, width: int, heads: int, inner: bool = True, outer: bool = False):
        super().__init__()
        self.inner = Attention(width, heads) if inner else None
        self.outer = Attention(width, heads) if outer else None
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(1 + inner + outer))
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x, mask=None, source=None, source_mask=None, causal=False):
        norms = iter(self.norms)
        if self.inner is not None:
            x = next(norms)(x + self.inner(x, x, mask, causal))
        if self.outer is not None:
            x = next(norms)(x + self.outer(x, source, source_mask))
        return next(norms)(x + self.narrow(F.gelu(self.widen(x))))


class Prose(nn.Module):
    """The network, both outputs at once."""

    def __init__(self, words, pad, width, heads, data_layers, symbol_layers, fusion_layers,
                 decoder_layers, symbol_decoder_layers):  # fmt: skip
        super().__init__()
        self.pad, self.width = pad, width
        self.embed = nn.Sequential(nn.Linear(4, width), nn.GELU(), nn.Linear(width, width))
        self.query = nn.Linear(1, width)
        self.table = nn.Embedding(words, width)
        nn.init.normal_(self.table.weight, std=width**-0.5)
        self.kinds = nn.Parameter(0.02 * torch.randn(2, width))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(5))
        stack = lambda count, **kind: nn.ModuleList(
            Layer(width, heads, **kind) for _ in range(count)
        )
        self.data, self.symbols = stack(data_layers), stack(symbol_layers)
        self.fusion = stack(fusion_layers)
        self.decoder = stack(decoder_layers, inner=False, outer=True)
        self.writer = stack(symbol_decoder_layers, outer=True)
        self.read = nn.Linear(width, 3)
        rates = torch.exp(-math.log(1e4) * 2 * torch.arange((width + 1) // 2) / width)
        angles = torch.arange(256)[:, None] * rates
        places = torch.stack([angles.sin(), angles.cos()], -1).reshape(256, -1)[:, :width]
        self.register_buffer("places", places)

    def embedded(self, ids, norm):
        return norm(self.width**0.5 * self.table(ids) + self.places[: ids.shape[1]])  # pyright: ignore[reportIndexIssue]

    def forward(self, t, u, guess, queries, text):
        data = self.norms[0](self.embed(torch.cat([t[..., None], u], dim=-1)))
        for layer in self.data:
            data = layer(data)
        seen = (guess != self.pad)[:, None, None, :]
        symbols = self.embedded(guess, self.norms[1])
        for layer in self.symbols:
            symbols = layer(symbols, seen)
        both = torch.cat([data + self.kinds[0], symbols + self.kinds[1]], dim=1)
        both = self.norms[3](both)
        all_seen = F.pad(seen, (t.shape[1], 0), value=True)
        for layer in self.fusion:
            both = layer(both, all_seen)
        data, symbols = both[:, : t.shape[1]], both[:, t.shape[1] :]
        x = self.norms[2](self.query(queries[..., None]))
        for layer in self.decoder:
            x = layer(x, source=data)
        y = self.embedded(text, self.norms[4])
        for layer in self.writer:
            y = layer(y, source=symbols, source_mask=seen, causal=True)
        return self.read(x), y @ self.table.weight.T


def network(words: int, pad: int, **sizes: int) -> Prose:
    """The network with PyTorch's own initial weights."""
    return Prose(words, pad, **sizes)


def total_loss(net: Prose, arrays: dict[str, Any], pad: int) -> Any:
    """6 times the relative squared error plus the cross-entropy."""
    text, target = arrays["text"], arrays["target"]
    found, logits = net(*(arrays[k] for k in ("t", "u", "guess", "queries")), text[:, :-1])
    miss = ((found - target) ** 2).sum((1, 2)) / ((target**2).sum((1, 2)) + 1e-5)
    words = F.cross_entropy(logits.flatten(0, 1), text[:, 1:].flatten(), ignore_index=pad)
    return 6 * miss.mean() + words
