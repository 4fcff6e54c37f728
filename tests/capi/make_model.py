"""Writes model.h: the models of capi_test.c as bytes. Run it after changing the texts below; it needs the onnx package."""

from pathlib import Path

from onnx import parser

TEXTS = {
    "model_bytes": """<ir_version: 8, opset_import: ["": 17]>
rearrange (float[batch, 3] x, int64[r] shape, string[words] text, int64[picks] index)
    => (float[3, batch] turned, float[?, ?] reshaped, string[picks] picked)
{
    turned = Transpose (x)
    reshaped = Reshape (x, shape)
    picked = Gather (text, index)
}""",
    "overridable_bytes": """<ir_version: 8, opset_import: ["": 17]>
scale (float[n] x, float[1] factor = {2}) => (float[n] y)
{
    y = Mul (x, factor)
}""",
}

lines = []
for name, text in TEXTS.items():
    data = parser.parse_model(text).SerializeToString()
    rows = [", ".join(f"{b:3d}" for b in data[i : i + 24]) for i in range(0, len(data), 24)]
    lines += ["/* Made by make_model.py out of:", *(f" * {line}" for line in text.splitlines()), " */"]
    lines += [f"static const unsigned char {name}[{len(data)}] = {{", *(f"    {row}," for row in rows), "};"]
(Path(__file__).parent / "model.h").write_text("\n".join(lines) + "\n")
