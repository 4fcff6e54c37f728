"""Einsum against numpy: drawn equations, with diagonals, sums, ellipses and up to three operands; and the errors."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

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
        own = {c: draw(st.sampled_from([1, e, e])) for c, e in extents.items()}  # an extent of 1 is as another operand's
        shape = [own[c] for c in letters]
        if spread:
            at, under = draw(st.integers(0, len(letters))), draw(st.integers(0, len(spread)))
            letters.insert(at, "...")
            shape[at:at] = [draw(st.sampled_from([1, e])) for e in spread[len(spread) - under :]]
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


@pytest.mark.parametrize(
    "equation, shapes",
    [
        ("ij,jk->ik", [(2, 1), (3, 4)]), ("ij,jk->ik", [(2, 3), (1, 4)]), ("ij,kj->ik", [(2, 3), (4, 1)]), ("ij,ij", [(2, 1), (1, 3)]),
        ("i,i->", [(1,), (3,)]), ("ij,j->i", [(0, 1), (3,)]), ("ij,j->i", [(2, 1), (0,)]), ("...j,jk->...k", [(5, 2, 1), (3, 4)]),
        ("ij,jk,kl->il", [(2, 1), (3, 1), (4, 2)]), ("ij,jk,jl->il", [(2, 1), (1, 3), (4, 2)]), ("abij,abjk->abik", [(1, 2, 3, 1), (2, 1, 4, 5)]),
        ("aijm,ijmn->an", [(2, 1, 3, 1), (4, 1, 5, 2)]), ("aij,bij->ab", [(2, 1, 3), (4, 5, 1)]), ("hij,hj->h", [(1, 2, 1), (3, 4)]),
        ("ijk,ilm->ijklm", [(1, 2, 3), (4, 1, 2)]), ("ab,bc->ca", [(1, 3), (1, 1)]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("dtype", ["float32", "int32"])
@pytest.mark.parametrize("level", [0, 99])
def test_extents_of_one_broadcast_where_no_extent_is_known(equation, shapes, dtype, level):
    """As numpy, PyTorch and onnxruntime have it. Then shapes that need no broadcast, in the same session."""
    rng = np.random.default_rng(5)
    options = tiercel.SessionOptions()
    options.graph_optimization_level = list(tiercel.GraphOptimizationLevel)[0 if level == 0 else -1]
    model, _, _ = one_node("Einsum", [np.zeros(s, dtype) for s in shapes], {"equation": equation}, 12, dynamic=True)
    session = tiercel.InferenceSession(model.SerializeToString(), options)
    extent = {c: max(s[t.replace("...", "x").index(c)] for t, s in zip(equation.split("->")[0].split(","), shapes, strict=True) if c in t)
              for c in set(equation) if c.isalpha() and "." not in equation}  # fmt: skip
    equal = [[extent[c] for c in t] for t in equation.split("->")[0].split(",")] if extent else shapes
    for each in (shapes, equal, shapes):
        operands = [rng.integers(-4, 5, s).astype(dtype) for s in each]
        (y,) = session.run(None, dict(zip((i.name for i in session.get_inputs()), operands, strict=True)))
        np.testing.assert_array_equal(y, np.einsum(equation, *operands))


def test_some_extents_known():
    """A number and a symbol: the symbol may turn out to be 1."""
    graph = helper.make_graph(
        [helper.make_node("Einsum", ["x", "y"], ["z"], equation="aij,ijb->ab")], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, "i", 3]), helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, "j", "b"])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)],
    )  # fmt: skip
    session = tiercel.InferenceSession(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString())
    rng = np.random.default_rng(6)
    for i, j, b in ((4, 3, 5), (1, 3, 5), (4, 1, 5), (1, 1, 1)):
        x, y = rng.integers(-4, 5, (2, i, 3)).astype(np.float32), rng.integers(-4, 5, (4, j, b)).astype(np.float32)
        np.testing.assert_array_equal(session.run(None, {"x": x, "y": y})[0], np.einsum("aij,ijb->ab", x, y))
    with pytest.raises(tiercel.errors.Error):
        session.run(None, {"x": np.zeros((2, 3, 3), np.float32), "y": np.zeros((4, 3, 1), np.float32)})


@pytest.mark.parametrize("dynamic", [False, True])
def test_a_diagonal_is_of_a_square(dynamic):
    model, feeds, _ = one_node("Einsum", [np.zeros((1, 3), np.float32)], {"equation": "ii->i"}, 12, dynamic=dynamic)
    with pytest.raises(tiercel.errors.Error, match="axes 0 and 1 of input 0 have one label, so they should have one extent, not 1 and 3"):
        tiercel.InferenceSession(model.SerializeToString()).run(None, feeds)


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
