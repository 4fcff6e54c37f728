"""Einsum by its definition (optimisation off) and as products, against numpy."""

import numpy as np
import onnx
import pytest

import tiercel
from oracle import check, one_node

RNG = np.random.default_rng(3)
CASES = [
    ("i,j->ij", (3,), (4,)),
    ("ij,jk", (3, 4), (4, 5)),
    ("i,i->", (7,), (7,)),
    ("ij->ji", (3, 4)),
    ("ij->i", (3, 4)),
    ("ii->i", (4, 4)),
    ("ii", (4, 4)),
    ("bij,bjk->bik", (2, 3, 4), (2, 4, 5)),
    ("...ij,...jk->...ik", (2, 3, 4), (4, 5)),
    ("...ij,...jk->...ik", (2, 1, 3, 4), (6, 4, 5)),
    ("b...->...b", (2, 3, 4)),
    ("bci,bcj->bij", (2, 8, 5), (2, 8, 6)),
    ("ibnd,jbnd->bnij", (3, 2, 4, 5), (6, 2, 4, 5)),
    ("ibh,hnd->ibnd", (3, 2, 8), (8, 4, 5)),
    ("ibnd,hnd->ibh", (3, 2, 4, 5), (8, 4, 5)),
    ("bhwc,hkc->bhwk", (2, 3, 4, 5), (3, 6, 5)),
    ("bhc,bch->b", (2, 3, 4), (2, 4, 3)),
    ("bij,bk->bijk", (2, 3, 4), (2, 5)),
    ("ab,bc,cd->ad", (2, 3), (3, 4), (4, 5)),
    ("bi,bi,bi->b", (2, 3), (2, 3), (2, 3)),
    ("abx,cb->c", (2, 3, 4), (5, 3)),
    (" i j , j k -> k i ", (3, 4), (4, 5)),
    ("Ab,bc->cA", (2, 3), (3, 4)),
    ("ij,jk->ik", (0, 4), (4, 5)),
    ("ij,jk->ik", (3, 0), (0, 5)),
]


@pytest.mark.parametrize(("equation", "shapes"), [(c[0], c[1:]) for c in CASES], ids=[c[0].strip() + str(i) for i, c in enumerate(CASES)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_einsum(equation, shapes, dtype):
    x = [RNG.standard_normal(s).astype(dtype) for s in shapes]
    check("Einsum", x, {"equation": equation}, opset=12, expected=[np.einsum(equation.replace(" ", ""), *x)], ulp=8, atol=8e-6 if dtype == "float32" else 1e-14)


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8", "float16"])
def test_types(dtype):
    x = [RNG.integers(0, 5, s).astype(dtype) for s in ((3, 4), (4, 2))]
    check("Einsum", x, {"equation": "ij,jk->ki"}, opset=12, expected=[np.einsum("ij,jk->ki", *x)])


@pytest.mark.parametrize(
    ("equation", "shapes", "why"),
    [
        ("ij,jk->ik", [(3, 4)], "terms"),
        ("ij->ij", [(3, 4), (4, 5)], "terms for 2"),
        ("ijk->ij", [(3, 4)], "labels 3 axes of 2"),
        ("ij->k", [(3, 4)], "stands in no input"),
        ("ij->ii", [(3, 4)], "repeats"),
        ("i1->i", [(3, 4)], "letters"),
        ("ij,jk->ik", [(3, 4), (5, 6)], "of the same label"),
    ],
)
def test_wrong_equations(equation, shapes, why):
    model, _, _ = one_node("Einsum", [np.zeros(s, "float32") for s in shapes], {"equation": equation}, 12)
    with pytest.raises(tiercel.errors.Error, match=why):
        tiercel.InferenceSession(model.SerializeToString())


@pytest.mark.parametrize(("equation", "shapes"), [(c[0], c[1:]) for c in CASES if "," in c[0] and "..." not in c[0]])
def test_becomes_products(equation, shapes, tmp_path):
    """With known extents nothing of it is left, and sums over a label are matrix products."""
    model, feeds, names = one_node("Einsum", [np.ones(s, "float32") for s in shapes], {"equation": equation}, 12)
    options = tiercel.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    tiercel.InferenceSession(model.SerializeToString(), options)
    assert "Einsum" not in [n.op_type for n in onnx.load(options.optimized_model_filepath).graph.node]


@pytest.mark.parametrize("equation", ["ibh,hnd->ibnd", "ibnd,hnd->ibh", "ibnd,jbnd->bnij"])
def test_unknown_extents(equation):
    """Batch and length are unknown; heads and depths are those of weights."""
    shapes = {"ibh": [3, 2, 8], "hnd": [8, 4, 5], "ibnd": [3, 2, 4, 5], "jbnd": [6, 2, 4, 5]}
    terms = equation.split("->")[0].split(",")
    x = [RNG.standard_normal(shapes[t]).astype("float32") for t in terms]
    model, feeds, names = one_node("Einsum", x, {"equation": equation}, 12)
    for value, term in zip(model.graph.input, terms, strict=True):
        for d, letter in zip(value.type.tensor_type.shape.dim, term, strict=True):
            if letter in "ijb":
                d.dim_param = letter
    got = tiercel.InferenceSession(model.SerializeToString()).run(names, feeds)[0]
    np.testing.assert_allclose(got, np.einsum(equation, *x), atol=1e-5)
