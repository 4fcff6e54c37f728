"""Exports image models of timm with random weights, for a comparison on architectures that no zoo holds.

    pip install --no-deps --target build/timm timm==1.0.31 torchvision==0.28.0
    python bench/timm_zoo.py build/architectures [NAME ...]
    python bench/compare.py build/architectures --engines onnxruntime tiercel --threads 2 --rounds 2 --seconds 0.4

Writes NAME.onnx (batch 1, the model's usual image size) with its input in NAME.npz. Needs the extra `bench`; timm and torchvision stay
in a folder of their own, for torchvision's build for CUDA does not load beside PyTorch for CPUs: its operators, which none of these
models uses, are declared and left out.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

PACKAGES = Path(__file__).resolve().parents[1] / "build" / "timm"
NAMES = """
    beit_base_patch16_224 coatnet_0_rw_224 convmixer_768_32 convnext_nano convnextv2_nano crossvit_9_240 cspresnet50 darknet53
    deit3_small_patch16_224 deit_tiny_patch16_224 densenet121 dla34 dpn68 edgenext_small efficientformer_l1 efficientnet_b0 efficientvit_b0
    efficientvit_m0 ese_vovnet19b_dw eva02_tiny_patch14_224 fastvit_t8 fbnetc_100 focalnet_tiny_srf ghostnet_100 ghostnetv2_100 gmlp_s16_224
    hardcorenas_a hgnet_tiny hrnet_w18_small inception_next_tiny inception_v3 lcnet_100 levit_128s maxvit_tiny_rw_224 mixer_s32_224 mixnet_s
    mnasnet_100 mobilenetv3_large_100 mobilenetv4_conv_medium mobilenetv4_conv_small mobilenetv4_hybrid_medium mobileone_s0 mobilevit_s
    mobilevitv2_100 nf_resnet50 nfnet_l0 poolformer_s12 pvt_v2_b0 regnetx_008 regnety_016 repvgg_a0 repvit_m1 res2net50_26w_4s resmlp_12_224
    resnest26d resnet18 resnext50_32x4d rexnet_100 semnasnet_100 seresnet50 skresnet18 spnasnet_100 starnet_s1 swin_tiny_patch4_window7_224
    swinv2_tiny_window8_256 tf_efficientnetv2_b0 tinynet_a tnt_s_patch16_224 twins_svt_small vgg11 vgg16_bn visformer_tiny wide_resnet50_2
    xception41 xcit_nano_12_p16_224
"""


def import_timm() -> Any:
    """timm beside a torchvision whose library of operators does not load."""
    sys.path.insert(0, str(PACKAGES))
    declared = torch.library.Library("torchvision", "DEF")
    source = (PACKAGES / "torchvision" / "_meta_registrations.py").read_text()
    for name in sorted(set(re.findall(r'torchvision::(\w+)"', source))):
        signature = "(Tensor dets, Tensor scores, float iou_threshold)" if name == "nms" else "(Tensor x)"
        declared.define(f"{name}{signature} -> Tensor")
    register = torch.library.register_fake

    def lenient(name: str, *args: Any, **options: Any) -> Any:
        def decorate(function: Any) -> Any:
            try:
                return register(name, *args, **options)(function)
            except (RuntimeError, ValueError):
                return function

        return decorate

    torch.library.register_fake = lenient
    try:
        import timm
    finally:
        torch.library.register_fake = register
    timm.declared = declared  # the declarations live as long as this object
    return timm


def export(timm: Any, name: str, folder: Path) -> None:
    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False, exportable=True).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    x = torch.randn(1, *model.default_cfg["input_size"])
    options = {"opset_version": 17, "input_names": ["x"], "output_names": ["y"], "dynamo": False}
    with torch.no_grad():
        torch.onnx.export(model, (x,), str(folder / f"{name}.onnx"), **options)
    np.savez(folder / f"{name}.npz", x=x.numpy())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", help="of timm's models (default: 75 of them)")
    args = parser.parse_args()
    if not (PACKAGES / "timm").is_dir():
        parser.error(f"timm is not in {PACKAGES}: see --help")
    args.folder.mkdir(parents=True, exist_ok=True)
    timm = import_timm()
    for name in args.names or NAMES.split():
        if not (args.folder / f"{name}.npz").exists():
            export(timm, name, args.folder)
            print(name, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
