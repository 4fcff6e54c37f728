"""Activations in the spellings that exporters write, or nearly; operators of two values."""

from __future__ import annotations

import numpy as np
from drawing import Drawing


def activation_of(d: Drawing, x: str) -> str:
    """One of the spellings that exporters write, or nearly one."""
    s = d.shapes[x]
    h = d.hidden
    c = d.const
    near = d.pick([1.0] * 5 + [1.01])  # now and then not quite the constant

    def gelu_erf() -> str:
        t = h("Erf", [h("Div", [x, c(np.sqrt(2) * near)])])
        t = h("Add", [t, c(d.pick([1.0, [1.0]]))])
        if d.chance(0.5):
            return d.emit("Mul", [h("Mul", [x, t]), c(0.5)], s)
        return d.emit("Mul", [h("Mul", [x, c(0.5)]), t], s)

    def gelu_tanh() -> str:
        cube = h("Pow", [x, c(3.0)]) if d.chance(0.5) else h("Mul", [h("Mul", [x, x]), x])
        inner = h("Mul", [h("Add", [x, h("Mul", [cube, c(0.044715 * near)])]), c(0.7978845608)])
        return d.emit("Mul", [h("Mul", [x, h("Add", [h("Tanh", [inner]), c(1.0)])]), c(0.5)], s)

    def silu() -> str:
        t = x if d.chance(0.6) else h("Mul", [x, c(1.702)])
        return d.two("Mul", x, d.emit("Sigmoid", [t], s if d.chance(0.3) else None), s)

    def hard_swish() -> str:
        if d.chance(0.5):
            return d.two("Mul", x, h("HardSigmoid", [x], alpha=float(1 / 6 * near), beta=0.5), s)
        t = h("Clip", [h("Add", [x, c(3.0 * near)]), c(0.0), c(6.0)])
        return d.emit("Div", [d.two("Mul", x, t, None), c(6.0)], s)

    def mish() -> str:
        return d.emit("Mul", [x, h("Tanh", [h("Softplus", [x])])], s)

    def plain() -> str:
        op = d.pick(["Relu", "Sigmoid", "Tanh", "Softplus", "Softsign", "Elu", "Selu", "HardSigmoid", "Abs", "Neg", "LeakyRelu", "Erf", "Sin", "Floor"])
        return d.emit(op, [x], s)

    def clip() -> str:
        low, high = d.pick([(0, 6), (-1, 1), (0, None), (None, 0.5), (0, 1)])
        names = [x, "" if low is None else c(float(low)), "" if high is None else c(float(high))]
        return d.emit("Clip", names[:2] if high is None else names, s)

    def prelu() -> str:
        slope = (s[1], *([1] * (len(s) - 2))) if len(s) > 2 and s[1] > 3 and d.chance(0.7) else (1,)  # 3 and less may be the batch, which changes
        return d.emit("PRelu", [x, d.positive(*slope)], s)

    def leaky_max() -> str:
        return d.emit("Max", [x, h("Mul", [x, c(d.pick([0.1, 0.5, 1.5]))])], s)

    def quotient() -> str:
        below = h("Add", [h("Exp", [h("Neg", [x])]), c(1.0)])
        return d.emit("Div", [d.pick([c(1.0), x]), below], s)

    return d.pick([gelu_erf, gelu_tanh, silu, silu, hard_swish, hard_swish, mish, plain, plain, plain, clip, prelu, leaky_max, quotient])()


def activation(d: Drawing) -> None:
    x = d.of_rank(1, 2, 3, 4, 5)
    if x:
        activation_of(d, x)


def binary(d: Drawing) -> None:
    x = d.of_rank(1, 2, 3, 4, 5)
    if not x:
        return
    s = d.shapes[x]
    op = d.pick(["Add", "Add", "Mul", "Mul", "Sub", "Max", "Min", "Div", "Sum", "Mean", "Where", "Pow"])
    other = d.of_shape(s, x)
    if other is None or d.chance(0.5):
        shape = [d.pick([1, e]) for e in s]
        for _ in range(int(d.rng.integers(0, len(shape) + 1))):
            if shape and shape[0] == 1 and d.chance(0.7):
                shape = shape[1:]
        if d.chance(0.3):
            shape = [s[1], *([1] * (len(s) - 2))] if len(s) > 1 else [1]
        other = d.positive(*shape) if d.chance(0.7) else d.emit("Identity", [d.vector(*shape)], None)
    if op == "Div":
        other = d.hidden("Add", [d.hidden("Abs", [other]), d.const(1.0)])
        d.emit("Div", [x, other], s)
    elif op == "Pow":
        d.emit("Pow", [d.hidden("Add", [d.hidden("Abs", [x]), d.const(0.5)]), d.const(d.pick([2.0, 0.5, -0.5, 1.5]))], s)
    elif op == "Where":
        mask = d.hidden(d.pick(["Greater", "Less", "GreaterOrEqual"]), [x, d.const(0.25)])
        d.emit("Where", [mask, x, other], s)
    elif op in ("Sum", "Mean", "Max", "Min"):
        third = d.of_shape(s)
        d.emit(op, [x, other, third] if d.chance(0.3) and third else [other, x], s)
    else:
        d.two(op, x, other, s)
