"""A base for ONNX Runtime: int8 products and the whole greedy loop in one graph, which was found fastest.

The same network and weights without a calibration (and without a mask: all sources are equally long).
"""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from edgeseq_core.evaluate.engines.models import BASE, NEVER
from edgeseq_core.text.vocabulary import BOS, EOS

GREEDY = "greedy.int8.onnx"


def export(folder: Path, into: Path) -> None:
    """Write ``encode`` and ``step``, their int8 versions, and the loop around them."""
    import torch
    from torch import Tensor, nn

    from edgeseq_core.model.base import Base
    from edgeseq_core.model.edgeformer import EdgeFormer

    model = Base.load(folder / BASE).model
    ends = model.vocabulary_bias.detach().clone()
    ends[EOS] += NEVER  # as our engines' calibrations have it
    config, rotary = model.config, model.positions
    cosines, sines = torch.as_tensor(rotary.cosine), torch.as_tensor(rotary.sine)
    width, layers = config.head_width, range(config.decoder_layers)

    def heads(x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], x.shape[1], x.shape[2] // width, width).transpose(1, 2)

    def turned(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        a, b, kept = torch.split(x, [width // 4, width // 4, width // 2], -1)
        return torch.cat([a * cosine - b * sine, a * sine + b * cosine, kept], -1)

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        mixed = torch.softmax(q * width**-0.5 @ k.transpose(2, 3), -1) @ v
        return mixed.transpose(1, 2).flatten(2)

    def norm(x: Tensor, name: str) -> Tensor:
        gain = model.norms[f"{name}.norm".replace(".", "_")]
        found: Tensor = x / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * gain
        return found

    class Part(nn.Module):
        def __init__(self, model: EdgeFormer) -> None:
            super().__init__()
            self.model, self.together = model, nn.ParameterDict()
            for site in model.sites.values():  # one product for queries, keys and values
                if site.kind == "attention":
                    parts = [model.matrix(site.name, part) for part in "qkv"]
                    self.together.setdefault(site.group, nn.Parameter(torch.cat(parts).detach()))

        def together_of(self, site: str) -> tuple[Tensor, Tensor]:
            bias = torch.cat([self.model.bias(site, part) for part in "qkv"])
            return self.together[self.model.sites[site].group], bias

        def project(self, x: Tensor, site: str, part: str) -> Tensor:
            return x @ self.model.matrix(site, part).T + self.model.bias(site, part)

        def qkv(self, x: Tensor, site: str) -> list[Tensor]:
            weight, bias = self.together_of(site)
            x = norm(x, site) @ weight.T + bias
            return [heads(one) for one in x.chunk(3, -1)]

        def feed(self, x: Tensor, name: str, site: str) -> Tensor:
            hidden = torch.relu(self.project(norm(x, name), site, "up"))
            return x + self.project(hidden, site, "down")

    class Encode(Part):
        def forward(self, source: Tensor) -> tuple[Tensor, ...]:
            model, length = self.model, source.shape[1]
            cosine, sine = cosines[:length], sines[:length]
            x = model.embedding[source] * math.sqrt(config.d_model)
            for layer in range(config.encoder_layers):
                site = f"encoder.{layer}.self"
                q, k, v = self.qkv(x, site)
                q, k = turned(q, cosine, sine), turned(k, cosine, sine)
                x = x + self.project(attend(q, k, v), site, "o")
                x = self.feed(x, f"encoder.{layer}.ffn", f"encoder.{layer}.ffn")
            x, out = norm(x, "encoder.out"), []
            tokens = model.task_tokens.expand(source.shape[0], -1, -1)
            for layer in layers:
                weight, bias = self.together_of(f"decoder.{layer}.cross")
                weight, bias = weight[config.d_model :], bias[config.d_model :]
                k, v = (heads(one) for one in (x @ weight.T + bias).chunk(2, -1))
                task_k, task_v = (heads(one) for one in (tokens @ weight.T + bias).chunk(2, -1))
                keys = torch.cat([task_k, turned(k, cosine, sine)], 2)
                out += [keys, torch.cat([task_v, v], 2)]
            return tuple(out)

    class Step(Part):
        def forward(self, token: Tensor, at: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
            model, new = self.model, []
            cosine, sine = cosines[at], sines[at]
            memory, past = states[: len(states) // 2], states[len(states) // 2 :]
            x = model.embedding[token] * math.sqrt(config.d_model) + model.task_vector
            for layer in layers:
                name, site = f"decoder.{layer}", f"decoder.{layer}.self"
                q, k, v = self.qkv(x, site)
                k = torch.cat([past[2 * layer], turned(k, cosine, sine)], 2)
                v = torch.cat([past[2 * layer + 1], v], 2)
                x = x + self.project(attend(turned(q, cosine, sine), k, v), site, "o")
                x = self.feed(x, f"{name}.ffn", f"{name}.ffn1")
                site = f"{name}.cross"
                q = heads(self.project(norm(x, site), site, "q"))
                mixed = attend(turned(q, cosine, sine), *memory[2 * layer : 2 * layer + 2])
                x = x + self.project(mixed, site, "o")
                x = self.feed(x, f"{name}.ffn", f"{name}.ffn2")
                new += [k, v]
            scores = norm(x, "decoder.out") @ model.embedding.T + ends
            return scores.argmax(-1), *new

    def names(letter: str) -> list[str]:
        return [f"{letter}{part}{layer}" for layer in layers for part in "kv"]

    def write(
        module: nn.Module, name: str, given: tuple[Any, ...], ins: list[str], outs: list[str]
    ) -> None:
        axes = {
            one: {0: "batch", 2 if one[0] in "mpn" else 1: "length_" + one} for one in [*ins, *outs]
        }
        axes.pop("at", None)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module.eval(), given, str(into / f"{name}.onnx"), input_names=ins, output_names=outs,
                dynamic_axes=axes, opset_version=17, dynamo=False,
            )  # fmt: skip
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(into / f"{name}.basic.onnx")
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        onnxruntime.InferenceSession(
            str(into / f"{name}.onnx"), options, providers=["CPUExecutionProvider"]
        )
        quantize_dynamic(
            into / f"{name}.basic.onnx",
            into / f"{name}.int8.onnx",
            per_channel=True,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["MatMul", "Gemm"],
        )

    into.mkdir()
    with torch.no_grad():
        source = torch.randint(3, 99, (2, 5))
        encode = Encode(model)
        memory = encode(source)
        past = tuple(one[:, :, :3] for one in memory)
        write(encode, "encode", (source,), ["source"], names("m"))
        step_in = ["token", "at", *names("m"), *names("p")]
        first = torch.full((2, 1), BOS), torch.tensor([3])
        write(Step(model), "step", (*first, *memory, *past), step_in, ["next", *names("n")])
    loop(into, names("p"))


def loop(into: Path, past: list[str]) -> None:
    """One graph: encode, then `Loop` over the step."""
    encode, step = (onnx.load(into / f"{name}.int8.onnx") for name in ("encode", "step"))
    memory = {one.name for one in encode.graph.output}
    _prefix(encode.graph, "e_", memory | {"source"})
    _prefix(step.graph, "s_", memory | {"token", "at", *past})
    real, whole = TensorProto.FLOAT, TensorProto.INT64

    def value(name: str, kind: int, shape: list[Any] | None = None) -> Any:
        return helper.make_tensor_value_info(name, kind, shape)

    body = helper.make_graph(
        [
            helper.make_node("Unsqueeze", ["turn", "axis"], ["at"]),
            *step.graph.node,
            helper.make_node("Identity", ["go_on"], ["go_on_out"]),
            helper.make_node("Identity", ["s_next"], ["made"]),
        ],
        "body",
        [value("turn", whole, []), value("go_on", TensorProto.BOOL, []), value("token", whole)]
        + [value(name, real) for name in past],
        [value("go_on_out", TensorProto.BOOL, []), value("s_next", whole)]
        + [value("s_n" + name[1:], real) for name in past]
        + [value("made", whole)],
    )
    ends = [name + "_end" for name in past]
    starts = [name + "_start" for name in past]
    turn = helper.make_node(
        "Loop", ["turns", "", "first", *starts], ["last", *ends, "tokens"], body=body
    )
    axis = numpy_helper.from_array(np.array([0], np.int64), "axis")
    graph = helper.make_graph(
        [*encode.graph.node, turn],
        "greedy",
        [
            value("source", whole, ["B", "S"]),
            value("turns", whole, []),
            value("first", whole, ["B", 1]),
        ]
        + [value(name, real, ["B", None, "P", None]) for name in starts],
        [value("tokens", whole, ["T", "B", 1])],
        [*encode.graph.initializer, *step.graph.initializer, axis],
    )
    imports = {(one.domain, one.version): one for one in (*encode.opset_import, *step.opset_import)}
    model = helper.make_model(graph, opset_imports=list(imports.values()))
    model.ir_version = encode.ir_version
    onnx.save(model, into / GREEDY)


def _prefix(graph: Any, prefix: str, kept: set[str]) -> None:
    def named(name: str) -> str:
        return name if name in kept or not name else prefix + name

    for node in graph.node:
        node.name = prefix + node.name
        node.input[:] = [named(one) for one in node.input]
        node.output[:] = [named(one) for one in node.output]
    for one in (*graph.initializer, *graph.output):
        one.name = named(one.name)
