"""Writes model.h: the model of capi_test.c as bytes. Run it after changing the text below; it needs the onnx package."""

from pathlib import Path

from onnx import parser

TEXT = """<ir_version: 8, opset_import: ["": 17]>
rearrange (float[batch, 3] x, int64[r] shape, string[words] text, int64[picks] index)
    => (float[3, batch] turned, float[?, ?] reshaped, string[picks] picked)
{
    turned = Transpose (x)
    reshaped = Reshape (x, shape)
    picked = Gather (text, index)
}"""

data = parser.parse_model(TEXT).SerializeToString()
rows = [", ".join(f"{b:3d}" for b in data[i : i + 24]) for i in range(0, len(data), 24)]
lines = ["/* Made by make_model.py out of:", *(f" * {line}" for line in TEXT.splitlines()), " */"]
lines += [f"static const unsigned char model_bytes[{len(data)}] = {{", *(f"    {row}," for row in rows), "};"]
(Path(__file__).parent / "model.h").write_text("\n".join(lines) + "\n")
