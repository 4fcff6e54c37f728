"""Layer, RMS, group, instance and batch normalisation against formulas in float64 and the reference evaluator."""

import numpy as np
import pytest

from oracle import check

RNG = np.random.default_rng(3)
TOL = {"float32": dict(ulp=16, atol=2e-6), "float64": dict(ulp=64, atol=1e-12), "float16": dict(ulp=4, atol=1e-3)}


def normal(shape, dtype="float32", mean=0.5):
    return RNG.normal(mean, 1.5, shape).astype(dtype)


def wide(*arrays):
    return [None if a is None else a.astype("float64") for a in arrays]


def normalise(x, axes, eps, rms=False):
    mean = 0 if rms else x.mean(axis=axes, keepdims=True)
    var = ((x - mean) ** 2).mean(axis=axes, keepdims=True)
    rstd = 1 / np.sqrt(var + float(np.float32(eps)))
    return (x - mean) * rstd, mean, rstd


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("shape,axis", [((3, 8), -1), ((2, 3, 40), 2), ((2, 3, 17), 1), ((2, 3, 4), 0), ((4, 1), -1), ((0, 5), -1), ((5, 768), -1)])
def test_layer_norm(dtype, shape, axis):
    x, s, b = normal(shape, dtype), normal(shape[axis:], dtype), normal(shape[axis:], dtype)
    axes = tuple(range(axis % len(shape), len(shape)))
    n, mean, rstd = normalise(wide(x)[0], axes, 1e-5)
    stat = "float32"
    want = [(n * wide(s)[0] + wide(b)[0]).astype(dtype), mean.astype(stat), rstd.astype(stat)]
    tol = TOL[dtype]
    for inputs, y in [([x, s, b], want[0]), ([x, s], (n * wide(s)[0]).astype(dtype))]:
        check("LayerNormalization", inputs, {"axis": axis}, outputs=1, expected=[y], **tol)
        got = check("LayerNormalization", inputs, {"axis": axis}, outputs=[True, False, True], expected=[y, want[2]], **TOL["float16" if dtype == "float16" else "float32"])
        assert got[1].dtype == np.float32
    check("LayerNormalization", [x, s, b], {"axis": axis}, outputs=3, expected=want, **TOL["float16" if dtype == "float16" else "float32"])


def test_layer_norm_broadcasts():
    x = normal((2, 3, 4, 5))
    n, _, _ = normalise(wide(x)[0], (2, 3), 1e-3)
    for s, b in [((1,), (5,)), ((4, 1), (1, 5)), ((4, 5), ()), ((1, 1, 4, 5), (1, 4, 5)), ((3, 4, 5), (2, 3, 1, 1))]:
        scale, bias = np.asarray(normal(s)), np.asarray(normal(b))
        check("LayerNormalization", [x, scale, bias], {"axis": 2, "epsilon": 1e-3}, expected=[(n * scale + bias).astype("float32")], **TOL["float32"])
    with pytest.raises(Exception, match="does not broadcast"):
        check("LayerNormalization", [x, normal((3,))], expected=[x])


def test_layer_norm_specials():
    x = normal((5, 40))
    x[0, 3], x[1, 3], x[2, :], x[3, :] = np.nan, np.inf, 7.25, 1e30
    with np.errstate(all="ignore"):
        n, _, _ = normalise(x.astype("float64"), (1,), 1e-5)
    check("LayerNormalization", [x[[0, 1, 2, 4]], np.ones(40, "float32")], expected=[n[[0, 1, 2, 4]].astype("float32")], **TOL["float32"])


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_rms_norm(dtype):
    x, s = normal((2, 3, 37), dtype), normal((37,), dtype)
    n, _, rstd = normalise(wide(x)[0], (2,), 1e-5, True)
    y = (n * wide(s)[0]).astype(dtype)
    check("RMSNormalization", [x, s], expected=[y], **TOL[dtype])
    for domain in ("", "com.microsoft"):
        check("SimplifiedLayerNormalization", [x, s], opset=1 if domain else 17, domain=domain, outputs=2, expected=[y, rstd.astype("float32")],
              **TOL["float16" if dtype == "float16" else "float32"])
    n, _, _ = normalise(wide(x)[0], (1, 2), 1e-2, True)
    s = normal((3, 37), dtype)
    check("RMSNormalization", [x, s], {"axis": -2, "epsilon": 1e-2}, expected=[(n * wide(s)[0]).astype(dtype)], **TOL[dtype])


@pytest.mark.parametrize("rms", [False, True])
@pytest.mark.parametrize("skip_shape", [(2, 3, 20), (1, 3, 20), (3, 20), (2, 1, 20)])
def test_skip(rms, skip_shape):
    x, skip, gamma, beta, bias = normal((2, 3, 20)), normal(skip_shape), normal(20), normal(20), normal(20)
    u = wide(x)[0] + skip + bias
    n, mean, rstd = normalise(u, (2,), 1e-6, rms)
    name = "SkipSimplifiedLayerNormalization" if rms else "SkipLayerNormalization"
    inputs = [x, skip, gamma, bias] if rms else [x, skip, gamma, beta, bias]
    y = (n * gamma + (0 if rms else beta)).astype("float32")
    outs = [True, False, True, True]
    check(name, inputs, {"epsilon": 1e-6}, opset=1, domain="com.microsoft", outputs=outs,
          expected=[y, rstd.astype("float32"), u.astype("float32")], **TOL["float32"])
    check(name, inputs, {"epsilon": 1e-6}, opset=1, domain="com.microsoft", expected=[y], **TOL["float32"])
    name = "SkipRMSNormalization" if rms else "SkipLayerNormalization"
    u = wide(x)[0] + skip
    n, _, _ = normalise(u, (2,), 1e-6, rms)
    inputs = [x, skip, gamma] if rms else [x, skip, gamma, beta]
    check(name, inputs, {"epsilon": 1e-6}, opset=1, domain="ai.tiercel", outputs=2,
          expected=[(n * gamma + (0 if rms else beta)).astype("float32"), u.astype("float32")], **TOL["float32"])


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("shape,groups", [((2, 6, 5, 7), 3), ((1, 8, 40, 40), 2), ((3, 4), 2), ((2, 6, 3), 6), ((1, 4, 300, 300), 2), ((0, 4, 3), 2)])
def test_group_norm(dtype, shape, groups):
    x = normal(shape, dtype)
    c = shape[1]
    per = c // groups
    axes = tuple(range(2, 2 + len(shape) - 1))
    n, _, _ = normalise(wide(x)[0].reshape(shape[0], groups, per, *shape[2:]), axes, 1e-5)
    n = n.reshape(shape)
    ones = (1,) * (len(shape) - 2)
    for opset, count in [(18, groups), (21, c)]:
        s, b = normal(count, dtype), normal(count, dtype)
        sw, bw = (np.repeat(v.astype("float64"), c // count).reshape(-1, *ones) for v in (s, b))
        check("GroupNormalization", [x, s, b], {"num_groups": groups}, opset=opset, expected=[(n * sw + bw).astype(dtype)], **TOL[dtype])
    y = n * sw + bw
    if dtype != "float64":
        silu = (y / (1 + np.exp(-y))).astype(dtype)
        check("GroupNormalization", [x, s, b], {"num_groups": groups, "activation": "Silu", "activation_alpha": 1.0}, opset=1, domain="ai.tiercel",
              expected=[silu], **TOL[dtype])
    check("GroupNormalization", [x], {"num_groups": groups}, opset=1, domain="ai.tiercel", expected=[n.astype(dtype)], **TOL[dtype])


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_instance_norm(dtype):
    for shape in [(2, 3, 4, 5), (1, 3, 50), (2, 2, 100, 120), (1, 2, 2, 3, 4)]:
        x, s, b = normal(shape, dtype), normal(shape[1], dtype), normal(shape[1], dtype)
        n, _, _ = normalise(wide(x)[0], tuple(range(2, len(shape))), 1e-3)
        ones = (1,) * (len(shape) - 2)
        want = (n * s.reshape(-1, *ones).astype("float64") + b.reshape(-1, *ones).astype("float64")).astype(dtype)
        for opset in (6, 22):
            check("InstanceNormalization", [x, s, b], {"epsilon": 1e-3}, opset=opset, expected=[want], **TOL[dtype])


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("opset", [6, 7, 9, 14, 15])
def test_batch_norm(dtype, opset):
    for shape in [(2, 3, 4, 5), (3, 40), (2, 5, 7), (1, 3, 40, 50), (0, 3, 2), (6,)]:
        c = shape[1] if len(shape) > 1 else 1
        x, s, b, m = (normal(n, dtype) for n in (shape, c, c, c))
        v = np.abs(normal(c, dtype)) + dtype_one(dtype)
        ones = (1,) * (len(shape) - 2)
        xs, ss, bs, ms, vs = wide(x, s, b, m, v)
        shaped = [a.reshape(-1, *ones) for a in (ss, bs, ms, vs)]
        want = ((xs - shaped[2]) / np.sqrt(shaped[3] + float(np.float32(1e-3))) * shaped[0] + shaped[1]).astype(dtype)
        attrs = {"epsilon": 1e-3, **({"is_test": 1} if opset == 6 else {})}
        check("BatchNormalization", [x, s, b, m, v], attrs, opset=opset, expected=[want], **TOL[dtype])


def dtype_one(dtype):
    return np.ones(1, dtype)


@pytest.mark.parametrize("opset", [6, 7, 9, 14, 15])
def test_batch_norm_training(opset):
    for shape in [(4, 3, 5, 6), (8, 40), (2, 3, 70, 80)]:
        x, s, b, m = (normal(n) for n in (shape, shape[1], shape[1], shape[1]))
        v = np.abs(normal(shape[1])) + np.float32(1)
        axes = (0, *range(2, len(shape)))
        n, mean, _ = normalise(wide(x)[0], axes, 1e-5)
        var = ((x - mean) ** 2).mean(axis=axes)
        mean = mean.reshape(-1)
        ones = (1,) * (len(shape) - 2)
        y = n * s.reshape(-1, *ones) + b.reshape(-1, *ones)
        want = [y, m * 0.8 + mean * 0.2, v * 0.8 + var * 0.2, mean, var]
        want = [w.astype("float32") for w in want]
        outputs = 3 if opset >= 14 else 5
        attrs = {"momentum": 0.8, **({"training_mode": 1} if opset >= 14 else {})}
        check("BatchNormalization", [x, s, b, m, v], attrs, opset=opset, outputs=outputs, expected=want[:outputs], **TOL["float32"])


def test_batch_norm_not_spatial():
    x, s, b, m = (normal(n) for n in ((3, 4, 5), (4, 5), (4, 5), (4, 5)))
    v = np.abs(normal((4, 5))) + np.float32(1)
    want = ((x - m) / np.sqrt(v + 1e-5) * s + b).astype("float32")
    check("BatchNormalization", [x, s, b, m, v], {"spatial": 0}, opset=7, expected=[want], **TOL["float32"])


def test_errors():
    x, c = normal((2, 4, 3)), normal(4)
    with pytest.raises(Exception, match="do not divide"):
        check("GroupNormalization", [x, c, c], {"num_groups": 3}, opset=21, expected=[x])
    with pytest.raises(Exception, match="num_groups"):
        check("GroupNormalization", [x, c, c], {"num_groups": 0}, opset=21, expected=[x])
    with pytest.raises(Exception, match="length of scale"):
        check("InstanceNormalization", [x, normal(3), c], expected=[x])
    with pytest.raises(Exception, match="channels"):
        check("BatchNormalization", [x, c, c, normal(3), c], expected=[x])


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("p", [1, 2])
def test_lp_norm(dtype, p):
    x = normal((3, 20, 300), dtype)
    x[1, :, 3] = 0
    x[2, 4, :] = 0
    for axis in (0, 1, 2, -1):
        w = wide(x)[0]
        n = (np.abs(w) ** p).sum(axis=axis, keepdims=True) ** (1 / p)
        want = np.where(n == 0, 0, w / np.where(n == 0, 1, n)).astype(dtype)
        check("LpNormalization", [x], {"axis": axis, "p": p}, expected=[want], **TOL[dtype])
        n = np.sqrt((w * w).sum(axis=axis, keepdims=True))
        for mode, d in [("max", np.maximum(n, 1e-3)), ("add", n + 1e-3), ("inside", np.sqrt(n * n + 1e-3))]:
            check("L2Normalization", [x], {"axis": axis, "epsilon": 1e-3, "mode": mode}, opset=1, domain="ai.tiercel",
                  expected=[(w / d).astype(dtype)], ulp=16, atol=1e-3 if dtype == "float16" else 1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_lrn(dtype):
    for shape, size in [((2, 7, 3, 5), 3), ((1, 5, 40, 9), 4), ((2, 3, 300), 5), ((1, 2, 2, 2), 1)]:
        x = normal(shape, dtype)
        square = np.pad(wide(x)[0] ** 2, [(0, 0), ((size - 1) // 2, size // 2)] + [(0, 0)] * (len(shape) - 2))
        s = sum(square[:, i : i + shape[1]] for i in range(size))
        want = (x / (1.5 + 0.02 / size * s) ** 0.6).astype(dtype)
        check("LRN", [x], {"size": size, "alpha": 0.02, "beta": 0.6, "bias": 1.5}, expected=[want], ulp=16, atol=1e-3 if dtype == "float16" else 1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_mean_variance_norm(dtype):
    x = normal((2, 3, 4, 5), dtype)
    for axes in (None, [2, 3], [1], [0, 1, 2, 3], [-1]):
        a = tuple([0, 2, 3] if axes is None else axes)
        w = wide(x)[0]
        m = w.mean(axis=a, keepdims=True)
        want = ((w - m) / (np.sqrt(((w - m) ** 2).mean(axis=a, keepdims=True)) + 1e-9)).astype(dtype)
        check("MeanVarianceNormalization", [x], {} if axes is None else {"axes": axes}, opset=13, expected=[want], ulp=16, atol=1e-3 if dtype == "float16" else 1e-6)


@pytest.mark.parametrize("rms", [False, True])
def test_inner_axes(rms):
    """ai.tiercel norms along axes inside the shape, and without scale and bias."""
    name = "RMSNormalization" if rms else "LayerNormalization"
    x = normal((2, 37, 5, 60))
    for axis, num, axes in [(1, 1, (1,)), (1, 2, (1, 2)), (0, 1, (0,)), (-1, 0, (3,)), (2, 0, (2, 3)), (2, 2, (2, 3))]:
        n, _, _ = normalise(wide(x)[0], axes, 1e-5, rms)
        attrs = {"axis": axis, "num_axes": num}
        tol = {"ulp": 16, "atol": 1e-4} if axis == 0 else TOL["float32"]  # of two elements: x - mean cancels
        check(name, [x], attrs, opset=1, domain="ai.tiercel", expected=[n.astype("float32")], **tol)
        if len(axes) == 1:
            s, b = normal(x.shape[axis]), normal(x.shape[axis])
            ones = (1,) * (3 - axes[0])
            want = n * s.reshape(-1, *ones) + (0 if rms else b.reshape(-1, *ones))
            check(name, [x, s] if rms else [x, s, b], attrs, opset=1, domain="ai.tiercel", expected=[want.astype("float32")], **tol)
