"""Einsum against numpy: drawn equations, with diagonals, sums, ellipses and up to three operands; and the errors."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tiercel
from oracle import check, one_node


@st.composite
def equations(draw):
    """An equation and the shapes of its operands."""
    extents = {c: draw(st.integers(0, 5)) for c in "abcde"}
    spread = draw(st.lists(st.integers(1, 3), max_size=2))
    terms, shapes = [], []
    for _ in range(draw(st.integers(1, 3))):
        letters = draw(st.lists(st.sampled_from("abcde"), max_size=4))
        shape = [extents[c] for c in letters]
        if spread:
            at, own = draw(st.integers(0, len(letters))), draw(st.integers(0, len(spread)))
            letters.insert(at, "...")
            shape[at:at] = [draw(st.sampled_from([1, e])) for e in spread[len(spread) - own :]]
        terms.append("".join(letters))
        shapes.append(shape)
    equation = ",".join(terms)
    used = sorted(set(equation) - set(".,"))
    if draw(st.booleans()):
        result = draw(st.permutations(used))[: draw(st.integers(0, len(used)))] if used else []
        if spread:
            result.insert(draw(st.integers(0, len(result))), "...")
        equation += "->" + "".join(result)
    return equation, shapes


@settings(max_examples=250, deadline=None, derandomize=True)
@given(equations(), st.sampled_from(["float32", "float64", "int64", "int32"]), st.booleans(), st.integers(0, 2**31))
def test_as_numpy(equation, dtype, dynamic, seed):
    text, shapes = equation
    rng = np.random.default_rng(seed)
    operands = [rng.integers(-4, 5, s).astype(dtype) for s in shapes]  # products and sums of these are exact
    expected = np.asarray(np.einsum(text, *operands), dtype)
    model, feeds, _ = one_node("Einsum", operands, {"equation": text}, 12, dynamic=dynamic)
    (y,) = tiercel.InferenceSession(model.SerializeToString()).run(None, feeds)
    assert y.shape == expected.shape and y.dtype == expected.dtype
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("equation", ["bhid,bhjd->bhij", "bij,bjk->bik", "bij,bkj->bik", "ij->ji", "ii->i", "...ij->...", "ij,jk,kl->il", "i,j->ij"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_common_equations(equation, dtype):
    rng = np.random.default_rng(3)
    extent = dict(zip("bhidjkl", (2, 3, 7, 16, 9, 5, 4), strict=True))
    shapes = [[extent[c] for c in term.replace("...", "b")] for term in equation.split("->")[0].split(",")]
    operands = [rng.uniform(0.5, 1, s).astype(dtype) for s in shapes]
    expected = np.einsum(equation, *(o.astype(np.float64) for o in operands)).astype(dtype)
    check("Einsum", operands, {"equation": equation}, 12, expected=[expected], ulp=8)


def test_spaces_and_order_of_a_result_left_out():
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    check("Einsum", [x], {"equation": " b a "}, 12, expected=[x.T])
    check("Einsum", [x, x], {"equation": "i j , k j"}, 12, expected=[x @ x.T])
