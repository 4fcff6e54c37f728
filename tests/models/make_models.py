"""Makes the models of this folder: real architectures at a few thousand weights each, random ones, exported by torch.

    python tests/models/make_models.py [NAME ...]        needs torch==2.13.0 transformers onnx onnxscript

The files are kept in the repository so that the tests need none of these. `test_models.py` says what goes into each.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
import onnx
import torch
import transformers as hf
from architectures import Positional, UNet, WaveNet
from torch import nn
from torch.nn import functional as F

DATA = Path(__file__).parent / "data"
LARGEST = 300 << 10  # bytes of a file
MODELS: dict[str, Callable[[], None]] = {}


def model(function: Callable[[], None]) -> Callable[[], None]:
    MODELS[function.__name__] = function
    return function


def lively(module: nn.Module) -> nn.Module:
    """Random statistics and scales in the normalisations, whose initial ones and zeros would hide mistakes."""
    for m in module.modules():
        for name in ("running_mean", "bias", "running_var", "weight"):
            t = getattr(m, name, None)
            if isinstance(t, torch.Tensor) and t.ndim == 1:
                with torch.no_grad():
                    t.uniform_(0.5, 1.5) if name in ("running_var", "weight") else t.uniform_(-0.3, 0.3)
    return module.eval()


def shorten(graph: onnx.GraphProto) -> None:
    """Numbers instead of the scopes that name intermediate values: half of a small file."""
    assert not any(
        a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for n in graph.node for a in n.attribute
    )
    kept = {v.name for v in [*graph.input, *graph.output, *graph.initializer]} | {""}
    names = {}
    for node in graph.node:
        node.input[:] = [names.get(i, i) for i in node.input]
        for i, output in enumerate(node.output):
            if output not in kept:
                names[output] = node.output[i] = f"v{len(names)}"


def export(
    name: str, module: nn.Module, args: tuple[torch.Tensor, ...], inputs: list[str], dynamic: Any = None,
    dynamo: bool = False, opset: int = 17,
) -> None:  # fmt: skip
    path = DATA / f"{name}.onnx"
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if dynamo:
            torch.onnx.export(
                lively(module), args, str(path), input_names=inputs, dynamo=True, dynamic_shapes=dynamic, external_data=False,
                verbose=False,
            )  # fmt: skip
        else:
            torch.onnx.export(
                lively(module),
                args,
                str(path),
                input_names=inputs,
                dynamo=False,
                dynamic_axes=dynamic,
                opset_version=opset,
            )
    proto = onnx.load(path)
    for node in proto.graph.node:  # where the line of source stands that a node comes from
        node.doc_string = ""
        del node.metadata_props[:]
    for value in [*proto.graph.initializer, *proto.graph.value_info, *proto.graph.input, *proto.graph.output]:
        value.doc_string = ""
        del value.metadata_props[:]
    del proto.graph.metadata_props[:]
    del proto.graph.value_info[:]
    shorten(proto.graph)
    onnx.save(proto, path)
    size = path.stat().st_size
    print(f"{name}: {len(proto.graph.node)} nodes, {size / 1024:.0f} KiB")
    assert size <= LARGEST, "too big for the repository"


@model
def resnet() -> None:
    config = hf.ResNetConfig(embedding_size=8, hidden_sizes=[12, 16, 24, 32], depths=[1, 2, 1, 1], num_labels=7)
    m = hf.ResNetForImageClassification(config)
    axes = {"pixel_values": {0: "batch", 2: "height", 3: "width"}}
    export("resnet", Positional(m, "pixel_values"), (torch.randn(1, 3, 64, 64),), ["pixel_values"], axes)


@model
def mobilenetv2() -> None:
    def conv(i: int, o: int, k: int = 1, s: int = 1, groups: int = 1, act: bool = True) -> list[nn.Module]:
        layers = [nn.Conv2d(i, o, k, s, k // 2, groups=groups, bias=False), nn.BatchNorm2d(o)]
        return [*layers, nn.ReLU6()] if act else layers

    class InvertedResidual(nn.Module):
        def __init__(self, i: int, o: int, expand: int, s: int) -> None:
            super().__init__()
            mid = i * expand
            wide = conv(i, mid) if expand > 1 else []
            self.body = nn.Sequential(*wide, *conv(mid, mid, 3, s, mid), *conv(mid, o, act=False))
            self.residual = s == 1 and i == o

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.body(x) if self.residual else self.body(x)

    rows = [
        (5, 1, 1),
        (6, 6, 2),
        (6, 6, 1),
        (9, 6, 2),
        (9, 6, 1),
        (17, 6, 1),
        (17, 6, 1),
    ]  # channels, expansion, stride
    layers, c = conv(3, 8, 3, 2), 8
    for o, expand, s in rows:
        layers.append(InvertedResidual(c, o, expand, s))
        c = o
    m = nn.Sequential(*layers, *conv(c, 40), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(40, 7))
    export("mobilenetv2", m, (torch.randn(1, 3, 48, 48),), ["x"], {"x": {0: "n"}})


class SqueezeExcite(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(c, 4, 1), nn.Conv2d(4, c, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * F.hardsigmoid(self.up(F.relu(self.down(F.adaptive_avg_pool2d(x, 1)))))


@model
def mobilenetv3() -> None:
    def block(i: int, mid: int, o: int, k: int, s: int) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(i, mid, 1, bias=False), nn.BatchNorm2d(mid), nn.Hardswish(),
            nn.Conv2d(mid, mid, k, s, k // 2, groups=mid, bias=False), nn.BatchNorm2d(mid), nn.Hardswish(),
            SqueezeExcite(mid), nn.Conv2d(mid, o, 1, bias=False), nn.BatchNorm2d(o),
        )  # fmt: skip

    m = nn.Sequential(
        nn.Conv2d(3, 9, 3, 2, 1, bias=False), nn.BatchNorm2d(9), nn.Hardswish(),
        block(9, 18, 11, 3, 1), block(11, 33, 13, 5, 2), block(13, 39, 20, 5, 1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(20, 32), nn.Hardswish(), nn.Linear(32, 6), nn.LogSoftmax(1),
    )  # fmt: skip
    export("mobilenetv3", m, (torch.randn(1, 3, 40, 40),), ["x"], {"x": {0: "n", 2: "h", 3: "w"}})


@model
def convnext() -> None:
    config = hf.ConvNextConfig(
        hidden_sizes=[6, 8, 12, 20], depths=[1, 1, 2, 1], num_labels=4, layer_scale_init_value=0.5
    )
    m = hf.ConvNextForImageClassification(config)
    export(
        "convnext",
        Positional(m, "pixel_values"),
        (torch.randn(1, 3, 64, 64),),
        ["pixel_values"],
        {"pixel_values": {0: "n"}},
    )


@model
def vit() -> None:
    config = hf.ViTConfig(
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=40,
        image_size=32,
        patch_size=8,
        num_labels=5,
    )
    m = hf.ViTForImageClassification(config)
    export(
        "vit", Positional(m, "pixel_values"), (torch.randn(1, 3, 32, 32),), ["pixel_values"], {"pixel_values": {0: "n"}}
    )


@model
def bert() -> None:
    config = hf.BertConfig(
        vocab_size=100, hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=40,
        max_position_embeddings=64, num_labels=3, attn_implementation="eager",
    )  # fmt: skip
    m = hf.BertForSequenceClassification(config)
    ids = torch.randint(0, 100, (2, 12))
    names = ["input_ids", "attention_mask"]
    axes = {n: {0: "batch", 1: "sequence"} for n in names}
    export("bert", Positional(m, *names), (ids, torch.ones_like(ids)), names, axes)


@model
def gpt2() -> None:
    config = hf.GPT2Config(
        vocab_size=100, n_positions=64, n_embd=24, n_layer=2, n_head=3, attn_implementation="sdpa", use_cache=False
    )
    m = hf.GPT2LMHeadModel(config)
    ids = torch.randint(0, 100, (2, 12))
    shapes = ({0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC},)
    export("gpt2", Positional(m, "input_ids", use_cache=False), (ids,), ["input_ids"], (shapes,), dynamo=True)


@model
def llama() -> None:
    """Rotary embedding, RMS norm, gated SiLU, grouped-query attention."""
    config = hf.LlamaConfig(
        vocab_size=100, hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, attn_implementation="eager", use_cache=False,
    )  # fmt: skip
    m = hf.LlamaForCausalLM(config)
    ids = torch.randint(0, 100, (2, 12))
    shapes = ({0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC},)
    export("llama", Positional(m, "input_ids", use_cache=False), (ids,), ["input_ids"], (shapes,), dynamo=True)


@model
def unet() -> None:
    m = UNet(width=4, levels=2, groups=2)
    export("unet", m, (torch.randn(1, 3, 16, 24),), ["x"], {"x": {0: "n", 2: "h", 3: "w"}})


@model
def wavenet() -> None:
    m = WaveNet(channels=12, skip=20, layers=4, stacks=2, q=16)
    export("wavenet", m, (torch.randn(1, 16, 50),), ["x"], {"x": {0: "n", 2: "t"}})


@model
def recurrent() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(10, 12, 2, bidirectional=True, batch_first=True)
            self.gru = nn.GRU(24, 14, bidirectional=True, batch_first=True)
            self.rnn = nn.RNN(28, 9, batch_first=True)
            self.out = nn.Linear(9, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out(self.rnn(self.gru(self.lstm(x)[0])[0])[0])

    export("recurrent", Recurrent(), (torch.randn(2, 9, 10),), ["x"], {"x": {0: "n", 1: "t"}})


@model
def detr() -> None:
    backbone = hf.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 12, 16, 24], depths=[1, 1, 1, 1], out_features=["stage4"]
    )
    config = hf.DetrConfig(
        use_timm_backbone=False, use_pretrained_backbone=False, backbone=None, backbone_config=backbone, num_labels=4,
        d_model=24, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=40, decoder_ffn_dim=40, encoder_attention_heads=3,
        decoder_attention_heads=3, num_queries=10, attn_implementation="eager",
    )  # fmt: skip
    m = hf.DetrForObjectDetection(config)
    export("detr", Positional(m, "pixel_values"), (torch.randn(1, 3, 64, 96),), ["pixel_values"])


@model
def whisper() -> None:
    config = hf.WhisperConfig(
        d_model=24, encoder_layers=2, decoder_layers=1, encoder_attention_heads=3, decoder_attention_heads=3,
        encoder_ffn_dim=40, decoder_ffn_dim=40, num_mel_bins=8, max_source_positions=50, vocab_size=100, pad_token_id=0,
        bos_token_id=1, eos_token_id=2, decoder_start_token_id=1, attn_implementation="eager",
    )  # fmt: skip
    encoder = hf.WhisperModel(config).encoder
    export("whisper", Positional(encoder, "input_features"), (torch.randn(1, 8, 100),), ["input_features"])


@model
def yolo() -> None:
    """A detector's neck and head: split blocks, pyramid pooling, nearest upsampling, boxes decoded from a grid."""

    def conv(i: int, o: int, k: int = 1, s: int = 1) -> nn.Module:
        return nn.Sequential(nn.Conv2d(i, o, k, s, k // 2, bias=False), nn.BatchNorm2d(o), nn.SiLU())

    class Split(nn.Module):
        def __init__(self, c: int) -> None:
            super().__init__()
            self.a, self.b, self.c = conv(c, c), conv(c // 2, c // 2, 3), conv(c + c // 2, c)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = list(self.a(x).chunk(2, 1))
            y.append(y[-1] + self.b(y[-1]))
            return self.c(torch.cat(y, 1))

    class Yolo(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.low, self.high = (
                conv(3, 8, 3, 2),
                nn.Sequential(conv(8, 12, 3, 2), Split(12)),
                conv(12, 16, 3, 2),
            )
            self.spread = conv(64, 16)
            self.mix = Split(28)
            self.boxes, self.classes = nn.Conv2d(28, 4 * 8, 1), nn.Conv2d(28, 3, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            low = self.low(self.stem(x))
            high = [self.high(low)]
            for _ in range(3):
                high.append(F.max_pool2d(high[-1], 5, 1, 2))
            up = F.interpolate(self.spread(torch.cat(high, 1)), scale_factor=2.0, mode="nearest")
            y = self.mix(torch.cat([up, low], 1))
            n, _, h, w = y.shape
            # The distance to each side is the mean of a distribution over 8 bins.
            sides = self.boxes(y).view(n, 4, 8, h * w).softmax(2).transpose(1, 2)
            distance = (sides * torch.arange(8.0).view(1, 8, 1, 1)).sum(1)
            gy, gx = torch.meshgrid(torch.arange(h) + 0.5, torch.arange(w) + 0.5, indexing="ij")
            centre = torch.stack([gx, gy]).view(1, 2, h * w)
            near, far = centre - distance[:, :2], centre + distance[:, 2:]
            boxes = torch.cat([(near + far) / 2, far - near], 1) * 4
            return torch.cat([boxes, self.classes(y).view(n, 3, h * w).sigmoid()], 1)

    export("yolo", Yolo(), (torch.randn(1, 3, 32, 48),), ["images"], {"images": {0: "n"}}, opset=13)


def main(names: list[str]) -> None:
    DATA.mkdir(exist_ok=True)
    for name in names or MODELS:
        torch.manual_seed(0)
        MODELS[name]()
    total = sum(p.stat().st_size for p in DATA.glob("*.onnx"))
    print(f"{total / 1024:.0f} KiB in all")


if __name__ == "__main__":
    main(sys.argv[1:])
