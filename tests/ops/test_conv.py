"""Conv and ai.tiercel.Conv against onnx's reference evaluator."""

import numpy as np
import pytest

import tiercel
from oracle import against_onnxruntime, check, compare, one_node, onnxruntime_result
from tiercel import _core

RNG = np.random.default_rng(7)


def rand(*shape, dtype=np.float32):
    return RNG.standard_normal(shape).astype(dtype)


def run(x, w, b=None, opset=22, ulp=64, **attrs):
    inputs = [x, w] if b is None else [x, w, b]
    scale = np.sqrt(np.prod(w.shape[1:]) + 1)
    eps = np.finfo(x.dtype).eps
    return check("Conv", inputs, attrs, opset=opset, ulp=ulp, atol=float(32 * eps * scale))


@pytest.mark.parametrize("opset", [1, 11, 22])
@pytest.mark.parametrize(
    "channels,outputs,group",
    [(3, 8, 1), (16, 32, 1), (20, 12, 4), (12, 12, 12), (33, 40, 1), (6, 18, 6), (3, 33, 3), (24, 24, 6), (32, 64, 8)],
)
def test_conv_2d(opset, channels, outputs, group):
    x, w, b = rand(2, channels, 7, 9), rand(outputs, channels // group, 3, 3), rand(outputs)
    run(x, w, b, opset, group=group, pads=[1, 0, 2, 1])
    run(x, w, None, opset, group=group, strides=[2, 1], dilations=[1, 2], kernel_shape=[3, 3])


@pytest.mark.parametrize("pad", ["SAME_UPPER", "SAME_LOWER", "VALID", "NOTSET"])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_conv_auto_pad(pad, stride):
    for size in (7, 8):
        run(rand(1, 4, size, size + 1), rand(5, 4, 2, 3), auto_pad=pad, strides=[stride, stride])


@pytest.mark.parametrize("dtype", [np.float64, np.float16])
def test_conv_types(dtype):
    run(rand(1, 6, 5, 6, dtype=dtype), rand(4, 3, 3, 3, dtype=dtype), rand(4, dtype=dtype), group=2, pads=[1, 1, 1, 1])


def test_conv_ranks():
    run(rand(2, 5, 20), rand(8, 5, 3), rand(8), dilations=[4], pads=[8, 0])
    run(rand(2, 17, 20), rand(17, 1, 5), rand(17), group=17, strides=[2])
    run(rand(1, 4, 5, 6, 7), rand(20, 2, 3, 2, 1), rand(20), group=2, pads=[1, 1, 0, 1, 0, 0], strides=[2, 1, 2])


def test_conv_empty():
    assert run(rand(0, 3, 5, 5), rand(4, 3, 3, 3))[0].shape == (0, 4, 3, 3)


@pytest.mark.parametrize(
    "x,w,b,attrs,message",
    [
        ((1, 3, 5, 5), (4, 2, 3, 3), None, {}, "3 channels"),
        ((1, 3, 5, 5), (4, 3, 3), None, {}, "rank"),
        ((1, 4, 5, 5), (4, 2, 3, 3), None, {"group": 3}, "groups"),
        ((1, 4, 5, 5), (4, 4, 3, 3), None, {"group": 0}, "group"),
        ((1, 3, 5, 5), (4, 3, 7, 7), None, {}, "kernel"),
        ((1, 3, 5, 5), (4, 3, 3, 3), (5,), {}, "B"),
        ((1, 3, 5, 5), (4, 3, 3, 3), None, {"strides": [0, 1]}, "strides"),
        ((1, 3, 5, 5), (4, 3, 3, 3), None, {"strides": [1]}, "strides"),
        ((1, 3, 5, 5), (4, 3, 3, 3), None, {"pads": [-1, 0, 0, 0]}, "pads"),
        ((1, 3, 5, 5), (4, 3, 3, 3), None, {"kernel_shape": [2, 2]}, "kernel_shape"),
        ((1, 3, 5, 5), (4, 3, 3, 3), None, {"auto_pad": "SAME"}, "auto_pad"),
        ((1, 3, 5, 5), (4, 3, 3, 3), None, {"dilations": [2**62, 1]}, "dilations"),
    ],
)
def test_conv_errors(x, w, b, attrs, message):
    inputs = [rand(*x), rand(*w)] + ([rand(*b)] if b else [])
    with pytest.raises(Exception, match=message):
        check("Conv", inputs, attrs, expected=[None])


def test_fused_conv():
    x, w, b = rand(2, 20, 6, 5), rand(24, 20, 3, 3), rand(24)
    (plain,) = run(x, w, b, pads=[1, 1, 1, 1])
    residual = rand(*plain.shape)
    total = plain + residual

    def fused(expected, **attrs):
        check("Conv", [x, w, b, residual], {"pads": [1, 1, 1, 1], **attrs}, opset=1, domain="ai.tiercel",
              expected=[expected.astype(np.float32)], ulp=64, atol=2e-5)

    fused(total)
    fused(np.maximum(total, 0), activation="Relu")
    fused(np.clip(total, 0.5, 2), activation="Clip", activation_alpha=0.5, activation_beta=2.0)
    fused(total / (1 + np.exp(-total)), activation="Silu", activation_alpha=1.0)
    fused(1 / (1 + np.exp(-total)), activation="Sigmoid")
    with pytest.raises(Exception, match="activation"):
        fused(total, activation="Nothing")
    assert _core is not None


@pytest.mark.parametrize("activation", [None, "Relu", "Silu"])
@pytest.mark.parametrize("space, outputs, group", [((2, 2), 50, 1), ((3, 5), 70, 1), ((1, 1), 40, 2), ((7,), 33, 1), ((2, 2, 3), 64, 2)])
def test_small_images_with_weights_of_run_time(space, outputs, group, activation):
    x, w, b = rand(2, 20 * group, *space), rand(outputs * group, 20, *[3] * len(space)), rand(outputs * group)
    pads = [1] * 2 * len(space)
    (plain,) = run(x, w, b, pads=pads, group=group)
    expected = {None: plain, "Relu": np.maximum(plain, 0), "Silu": plain / (1 + np.exp(-plain))}[activation]
    attrs = {"activation": activation, "activation_alpha": 1.0} if activation else {}
    check("Conv", [x, w, b], {"pads": pads, "group": group, **attrs}, opset=1, domain="ai.tiercel",
          expected=[expected.astype(np.float32)], ulp=64, atol=4e-5)
    x[0, 3], x[1].flat[5] = np.nan, np.inf  # reach the pixels that they do by definition (in weights they would meet the padding's zeros)
    check("Conv", [x, w, b], {"pads": pads, "group": group}, expected=list(run(x, w, b, pads=pads, group=group)), ulp=64, atol=4e-5)


@pytest.mark.parametrize("channels, group", [(3, 1), (16, 16), (32, 8)])  # few channels, depthwise, small groups
def test_a_large_residual_joins_finished_sums(channels, group):
    """One rounding of the residual's size, not one for each product."""
    x, w, b = rand(1, channels, 9, 20), rand(32 if group < 16 else 16, channels // group, 3, 3), rand(32 if group < 16 else 16)
    (plain,) = run(x, w, b, pads=[1, 1, 1, 1], group=group)
    residual = np.float32(2**20) + rand(*plain.shape)
    exact = plain.astype(np.float64) + residual
    check("Conv", [x, w, b, residual], {"pads": [1, 1, 1, 1], "group": group}, opset=1, domain="ai.tiercel",
          expected=[exact.astype(np.float32)], ulp=0, atol=float(np.spacing(np.float32(2**20))))


def transposed(x, w, b=None, opset=22, **attrs):
    inputs = [x, w] if b is None else [x, w, b]
    scale = np.sqrt(x.shape[1] * np.prod(w.shape[2:]))
    # onnx's reference evaluator lacks groups and output_shape without pads.
    return against_onnxruntime("ConvTranspose", inputs, attrs, opset, ulp=64, atol=float(32 * np.finfo(x.dtype).eps * scale))


@pytest.mark.parametrize("opset", [1, 11, 22])
def test_conv_transpose(opset):
    x, w, b = rand(2, 8, 5, 6), rand(8, 20, 3, 3), rand(20)
    for attrs in (
        {}, {"strides": [2, 2]}, {"strides": [3, 2], "output_padding": [1, 1]}, {"pads": [1, 1, 1, 1], "strides": [2, 2]},
        {"dilations": [2, 2]}, {"strides": [2, 2], "output_shape": [10, 12]}, {"strides": [2, 2], "pads": [0, 1, 1, 0]},
        {"strides": [2, 2], "dilations": [2, 1]}, {"strides": [4, 5]},
    ):
        transposed(x, w, b, opset, **attrs)
    transposed(x, w, None, opset, strides=[2, 1])


@pytest.mark.parametrize("pad", ["SAME_UPPER", "SAME_LOWER", "VALID"])
def test_conv_transpose_auto_pad(pad):
    transposed(rand(1, 4, 5, 6), rand(4, 6, 3, 3), auto_pad=pad, strides=[2, 2])


def test_conv_transpose_groups_and_ranks():
    transposed(rand(2, 12, 5, 6), rand(12, 3, 3, 3), rand(9), group=3, strides=[2, 2])
    transposed(rand(1, 16, 7), rand(16, 1, 4), rand(16), group=16, strides=[2])
    transposed(rand(1, 4, 3, 4, 5), rand(4, 6, 2, 3, 2), rand(6), strides=[2, 1, 2])
    x, w = rand(1, 4, 3, 4), rand(4, 6, 2, 3)
    (y,) = transposed(x, w, strides=[2, 2])
    check("ConvTranspose", [x.astype(np.float64), w.astype(np.float64)], {"strides": [2, 2]}, expected=[y.astype(np.float64)], atol=1e-5)


def on_threads(model, feeds, threads):
    options = tiercel.SessionOptions()
    options.intra_op_num_threads = threads
    return tiercel.InferenceSession(model.SerializeToString(), options).run(None, feeds)[0]


@pytest.mark.parametrize("seed", range(40))
def test_teams_cut_the_work_and_change_no_bit(seed):
    """The work is cut for the team, into pixels or panels of outputs, whatever there is of them: drawn convolutions, a third transposed."""
    rng = np.random.default_rng(seed)
    op = "ConvTranspose" if seed % 3 == 0 else "Conv"
    axes, group, alone = int(rng.integers(1, 4)), int(rng.choice([1, 1, 1, 2, 3])), rng.random() < 0.2
    space = rng.integers(1, 2 if alone else (300, 24, 6)[axes - 1], axes)
    kernel, strides, pads = np.minimum(rng.choice([1, 1, 3], axes), space), rng.integers(1, 4, axes), rng.integers(0, 2, axes)
    if op == "ConvTranspose":  # else nothing may be left
        pads *= (space - 1) * strides + kernel > 2
    channels, outputs = (group * int(rng.choice(n)) for n in ([1, 3, 8, 16, 35, 100], [1, 7, 16, 40, 100, 290]))
    x, b = rand(int(rng.integers(1, 4)), channels, *space), rand(outputs)
    w = rand(*((channels, outputs // group) if op == "ConvTranspose" else (outputs, channels // group)), *kernel)
    attrs = {"group": group, "strides": strides.tolist(), "pads": pads.tolist() * 2}
    (want,) = onnxruntime_result(op, [x, w, b], attrs, 22)
    residual = rand(*want.shape)
    total = want + residual
    silu = {**attrs, "activation": "Silu", "activation_alpha": 1.0}
    for inputs, given, version, constants, expected in (
        ([x, w, b], attrs, (22, ""), (1, 2), want), ([x, w, b], attrs, (22, ""), (), want),
        ([x, w, b, residual], silu, (1, "ai.tiercel"), (1, 2), total * (0.5 + 0.5 * np.tanh(total / 2))),
    ):
        model, feeds, _ = one_node(op, inputs, given, *version, constants=constants, dynamic=bool(seed % 2))
        one = on_threads(model, feeds, 1)
        compare(one, expected, 64, float(4e-6 * np.sqrt(channels // group * kernel.prod() + 1)))
        for threads in (2, 3, 4, 5, 8):
            assert on_threads(model, feeds, threads).tobytes() == one.tobytes(), f"{threads} threads"


def test_many_inputs_for_few_pixels():
    """More chunks would be wanted for the input's sake than there are pixels."""
    x, w = rand(1, 40, 160, 160), rand(150, 40, 5, 5)
    attrs = {"strides": [155, 80]}
    (want,) = onnxruntime_result("Conv", [x, w], attrs, 22)
    model, feeds, _ = one_node("Conv", [x, w], attrs, 22, constants=(1,))
    for threads in (1, 2, 3, 4):
        compare(on_threads(model, feeds, threads), want, 64, 2e-4)


@pytest.mark.parametrize("constants", [(1, 2), ()])
def test_infinite_weights_and_negative_zeros_are_the_same_on_any_team(constants):
    """Tiles differ from team to team; what the padding's zeros give with such weights may not depend on who shares a tile."""
    for seed in range(12):
        rng = np.random.default_rng(seed)
        channels, outputs, d = int(rng.choice([16, 40])), int(rng.choice([16, 100])), int(rng.integers(1, 4))
        x, w, b = rand(1, channels, *rng.integers(3, 12, 2)), rand(outputs, channels, 3, 3), rand(outputs)
        if seed % 2:
            w[-1, 0, 0, 0], w[0, -1, 2, 1] = np.inf, np.nan
        else:
            x[:], b[:], w = 0, -0.0, -np.abs(w)
            w[:, :, 0] *= -1
        model, feeds, _ = one_node("Conv", [x, w, b], {"pads": [d] * 4, "dilations": [d, d]}, 22, constants=constants)
        results = [on_threads(model, feeds, threads).tobytes() for threads in (1, 2, 3, 4)]
        assert len(set(results)) == 1, seed


@pytest.mark.parametrize("seed", range(24))
def test_groups_keep_their_infinities(seed):
    """Groups that share a block or a register: what one has reaches none of another's outputs."""
    rng = np.random.default_rng(seed)
    op = "ConvTranspose" if seed % 3 == 0 else "Conv"
    group, kernel, stride = int(rng.integers(2, 6)), int(rng.choice([1, 3])), int(rng.choice([1, 2]))
    channels, outputs = group * int(rng.choice([1, 5, 12, 20, 40, 90])), group * int(rng.choice([1, 3, 12, 20, 37]))
    x, b = rand(2, channels, int(rng.integers(kernel, 14)), int(rng.integers(kernel, 30))), rand(outputs)
    w = rand(*((channels, outputs // group) if op == "ConvTranspose" else (outputs, channels // group)), kernel, kernel)
    for value in (np.nan, np.inf, -np.inf):
        x[tuple(rng.integers(0, n) for n in x.shape)] = value
    attrs = {"group": group, "strides": [stride, stride], "pads": [kernel // 2] * 4}
    (want,) = onnxruntime_result(op, [x, w, b], attrs, 22)
    residual = rand(*want.shape)
    residual[0, -1] = np.inf
    with np.errstate(invalid="ignore"):  # infinities of both signs meet
        total = np.maximum(want + residual, 0)
    atol = float(4e-6 * np.sqrt(channels // group * kernel * kernel + 1))
    for constants in ((1, 2), ()):
        for inputs, given, version, expected in (
            ([x, w, b], attrs, (22, ""), want),
            ([x, w, b, residual], {**attrs, "activation": "Relu"}, (1, "ai.tiercel"), total),
        ):
            model, feeds, _ = one_node(op, inputs, given, *version, constants=constants)
            compare(on_threads(model, feeds, 2), expected, 64, atol)
