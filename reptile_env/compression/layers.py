"""Layers that can be cut where torch's own can't: attention with any number of heads, recurrent layers of unequal widths."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import PackedSequence

RECURRENT = (nn.RNN, nn.LSTM, nn.GRU)


class Attention(nn.Module):
    """As `nn.MultiheadAttention`, with a projection each for query, key and value, and as many heads as those leave.

    Args:
        source: the layer to take over; it is not altered.

    Raises:
        ValueError: options that no projection can stand for (``add_bias_kv``, ``add_zero_attn``).
    """

    # nn.TransformerEncoderLayer reads these to see whether its fused path may be taken; without in_proj_bias it is not.
    in_proj_bias = None
    in_proj_weight = None
    _qkv_same_embed_dim = False

    def __init__(self, source: nn.MultiheadAttention) -> None:
        super().__init__()
        if source.bias_k is not None or source.add_zero_attn:
            raise ValueError("attention with add_bias_kv or add_zero_attn can't be cut")
        self.batch_first, self.head_dim, self.dropout = source.batch_first, source.head_dim, source.dropout
        width, bias = source.embed_dim, source.in_proj_bias is not None
        self.q_proj = nn.Linear(width, width, bias, device="meta")
        self.k_proj = nn.Linear(source.kdim or width, width, bias, device="meta")
        self.v_proj = nn.Linear(source.vdim or width, width, bias, device="meta")
        self.out_proj = nn.Linear(width, source.out_proj.out_features, source.out_proj.bias is not None, device="meta")
        if source._qkv_same_embed_dim:
            weights: Any = source.in_proj_weight.detach().chunk(3)
        else:
            weights = (source.q_proj_weight, source.k_proj_weight, source.v_proj_weight)
        biases = source.in_proj_bias.detach().chunk(3) if bias else (None, None, None)
        for layer, weight, shift in zip((self.q_proj, self.k_proj, self.v_proj), weights, biases, strict=True):
            layer.weight = nn.Parameter(weight.detach().clone())
            if shift is not None:
                layer.bias = nn.Parameter(shift.clone())
        self.out_proj.load_state_dict(source.out_proj.state_dict(), assign=True)

    @property
    def num_heads(self) -> int:
        """Heads that are left."""
        return self.q_proj.out_features // int(self.head_dim)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """As `nn.MultiheadAttention.forward`."""
        batched = query.dim() == 3
        if not batched:
            query, key, value = (t.unsqueeze(0 if self.batch_first else 1) for t in (query, key, value))
            key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
        if not self.batch_first:
            query, key, value = (t.transpose(0, 1) for t in (query, key, value))
        q, k, v = self._split(self.q_proj(query)), self._split(self.k_proj(key)), self._split(self.v_proj(value))
        mask = self._mask(attn_mask, key_padding_mask, q)
        dropout = self.dropout if self.training else 0.0
        attended, weights = None, None
        if need_weights:
            scores = q @ k.transpose(-2, -1) / self.head_dim**0.5
            weights = torch.softmax(scores if mask is None else scores + mask, dim=-1)
            attended = functional.dropout(weights, dropout) @ v
            weights = weights.mean(1) if average_attn_weights else weights
        else:
            attended = functional.scaled_dot_product_attention(q, k, v, mask, dropout)
        out = self.out_proj(attended.transpose(1, 2).flatten(2))
        if not self.batch_first:
            out = out.transpose(0, 1)
        if not batched:
            out = out.squeeze(0 if self.batch_first else 1)
            weights = None if weights is None else weights.squeeze(0)
        return out, weights

    def _split(self, x: Tensor) -> Tensor:
        return torch.unflatten(x, -1, (-1, self.head_dim)).transpose(1, 2)

    def _mask(self, attn_mask: Tensor | None, padding: Tensor | None, q: Tensor) -> Tensor | None:
        """Both masks as one additive mask that broadcasts over ``(batch, heads, queries, keys)``."""
        additive: list[Tensor | None] = []
        for mask in (attn_mask, padding):
            if mask is None:
                additive.append(None)
            elif mask.dtype == torch.bool:
                additive.append(torch.zeros_like(mask, dtype=q.dtype).masked_fill(mask, float("-inf")))
            else:
                additive.append(mask.to(q.dtype))
        attend, pad = additive
        if attend is not None and attend.dim() == 3:
            # One mask a head: removed heads leave theirs behind, so only a mask that all heads share can be used.
            attend = torch.unflatten(attend, 0, (q.shape[0], -1))
            if attend.shape[1] not in (1, self.num_heads):
                raise ValueError("an attention mask for each head does not fit a network whose heads are cut")
        if pad is not None:
            pad = pad[:, None, None, :]
        return pad if attend is None else attend if pad is None else attend + pad


class RecurrentStack(nn.Module):
    """As a multi-layer `nn.RNN`, `nn.LSTM` or `nn.GRU`, one module a layer, so that widths may differ after a cut.

    The final states come as one tensor while all layers are equally wide, and as a list of one tensor for each layer and
    direction after that; ``h[-1]`` reads the same either way.

    Args:
        source: the layer to take over; it is not altered.
    """

    def __init__(self, source: nn.RNNBase) -> None:
        super().__init__()
        self.batch_first, self.dropout, self.directions = source.batch_first, source.dropout, 1 + source.bidirectional
        self.is_lstm = isinstance(source, nn.LSTM)
        self.layers = nn.ModuleList()
        extra = {"nonlinearity": source.nonlinearity} if isinstance(source, nn.RNN) else {}
        for index in range(source.num_layers):
            inputs = source.input_size if index == 0 else source.hidden_size * self.directions
            kind: Any = type(source)
            layer = kind(
                inputs,
                source.hidden_size,
                bias=source.bias,
                batch_first=source.batch_first,
                bidirectional=source.bidirectional,
                device="meta",
                **extra,
            )
            state = {
                name: getattr(source, name.replace("_l0", f"_l{index}")).detach().clone() for name in layer._flat_weights_names
            }
            layer.load_state_dict(state, assign=True)
            self.layers.append(layer)

    def forward(self, x: Tensor | PackedSequence, hx: Any = None) -> tuple[Any, Any]:
        """As the layer it stands for."""
        states = []
        for index, layer in enumerate(self.layers):
            first = None
            if hx is not None:
                rows = slice(index * self.directions, (index + 1) * self.directions)
                first = tuple(state[rows] for state in hx) if self.is_lstm else hx[rows]
            x, state = layer(x, first)
            states.append(state)
            if self.training and self.dropout and index + 1 < len(self.layers):
                x = self._drop(x)
        if self.is_lstm:
            return x, tuple(_joined([state[i] for state in states]) for i in range(2))
        return x, _joined(states)

    def flatten_parameters(self) -> None:
        """Nothing to do: the layers keep their own memory in order."""

    def _drop(self, x: Tensor | PackedSequence) -> Tensor | PackedSequence:
        if isinstance(x, PackedSequence):
            return x._replace(data=functional.dropout(x.data, self.dropout))
        return functional.dropout(x, self.dropout)


def _joined(states: list[Tensor]) -> Tensor | list[Tensor]:
    if len({state.shape[-1] for state in states}) == 1:
        return torch.cat(states)
    return [direction for state in states for direction in state]


class WidthNorm(nn.LayerNorm):
    """As `nn.LayerNorm`, and with fewer features than it stands for it computes what it would if the others were zeros.

    Mean and variance are those of the dense width, so that cutting a residual stream equals zeroing its channels.

    Args:
        source: the layer to take over; it is not altered.
    """

    def __init__(self, source: nn.LayerNorm) -> None:
        super().__init__(source.normalized_shape, source.eps, source.elementwise_affine, source.bias is not None, device="meta")
        self.load_state_dict(source.state_dict(), assign=True)
        self.dense_width = source.normalized_shape[0]

    def forward(self, x: Tensor) -> Tensor:
        """``(..., features)``, as many as are left."""
        gone = self.dense_width - x.shape[-1]
        if gone == 0:
            return functional.layer_norm(x, x.shape[-1:], self.weight, self.bias, self.eps)
        mean = x.sum(-1, keepdim=True) / self.dense_width
        centred = x - mean
        variance = (centred.square().sum(-1, keepdim=True) + gone * mean.square()) / self.dense_width
        normal = centred * torch.rsqrt(variance + self.eps)
        if self.weight is not None:
            normal = normal * self.weight
        return normal if self.bias is None else normal + self.bias


def prepare(model: nn.Module, residual_width: bool = False) -> tuple[nn.Module, dict[str, str]]:
    """A copy of a network in which every layer that has a cuttable stand-in is replaced by it.

    The copy computes what the network computes. Names of parameters change below the replaced layers alone.

    Args:
        model: the network; it is not altered.
        residual_width: layer norms get a stand-in as well (`WidthNorm`), so that the width of a residual stream can be cut.

    Returns:
        The copy, and for each layer that could not be replaced the reason.
    """
    prepared = copy.deepcopy(model)
    refused = {}
    for name, module in list(prepared.named_modules()):
        stand_in: nn.Module | None = None
        if type(module) is nn.MultiheadAttention:
            try:
                stand_in = Attention(module)
            except ValueError as error:
                refused[name] = str(error)
        elif residual_width and type(module) is nn.LayerNorm and len(module.normalized_shape) == 1:
            stand_in = WidthNorm(module)
        elif type(module) in RECURRENT and module.num_layers > 1 and not module.proj_size:
            stand_in = RecurrentStack(module)
        elif isinstance(module, RECURRENT) and module.proj_size:
            refused[name] = f"{type(module).__name__} with projections (proj_size) can't be cut"
        elif type(module) is nn.Unflatten and isinstance(module.unflattened_size, tuple) and -1 not in module.unflattened_size:
            # Its first size is what is left of the channels.
            module.unflattened_size = (-1, *module.unflattened_size[1:])
        if stand_in is not None:
            stand_in.train(module.training).requires_grad_(False)
            if not name:
                return stand_in, refused
            prepared.set_submodule(name, stand_in)
    return prepared, refused
