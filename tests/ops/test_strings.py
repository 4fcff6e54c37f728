"""String operators against the reference evaluator."""

import numpy as np
import pytest

from oracle import check, fails_everywhere


def s(*v):
    return np.array(v, object)


def test_concat():
    check("StringConcat", [s("a", "é", ""), s("1", "2", "3")], opset=20)
    check("StringConcat", [s("a", "b").reshape(2, 1), s("1", "2", "3")], opset=20)
    check("StringConcat", [s("x").reshape(()), s()], opset=20)
    fails_everywhere("broadcast", "StringConcat", [s("a", "b"), s("a", "b", "c")], opset=20)


@pytest.mark.parametrize("maxsplit", [None, 0, 1, 2])
@pytest.mark.parametrize("delimiter", [None, "", ",", "--"])
def test_split(delimiter, maxsplit):
    attrs = ({} if delimiter is None else {"delimiter": delimiter}) | ({} if maxsplit is None else {"maxsplit": maxsplit})
    texts = ["a,b,c", " a  b c ", "", "x", "--a----b--", "  ", ",", "é,ü"]
    parts = [t.split(delimiter or None, -1 if maxsplit is None else maxsplit) for t in texts]
    most = max(map(len, parts))
    padded = np.array([p + [""] * (most - len(p)) for p in parts], object)
    check("StringSplit", [s(*texts)], attrs, 20, outputs=2, expected=[padded, np.array([len(p) for p in parts])])
    check("StringSplit", [s(*texts).reshape(2, 4)], attrs, 20, outputs=2,
          expected=[padded.reshape(2, 4, most), np.array([len(p) for p in parts]).reshape(2, 4)])
    check("StringSplit", [s()], attrs, 20, outputs=2, expected=[np.zeros((0, 0), object), np.zeros(0, np.int64)])


@pytest.mark.parametrize("case", ["NONE", "LOWER", "UPPER"])
@pytest.mark.parametrize("sensitive", [0, 1])
def test_normalizer(case, sensitive):
    words = ["Monday", "tuesday", "ÄPFEL", "straße", "Привет", "Άλφα", "Ÿ", "ŁÓDŹ"]
    attrs = {"case_change_action": case, "is_case_sensitive": sensitive, "stopwords": ["monday", "tuesday"]}
    kept = [w for w in words if (w if sensitive else w.lower()) not in ("monday", "tuesday")]
    change = {"NONE": str, "LOWER": str.lower, "UPPER": lambda w: "".join(c if c == "ß" else c.upper() for c in w)}[case]
    want = [change(w) if w != "Άλφα" else want_greek(w, case) for w in kept]
    check("StringNormalizer", [s(*words)], attrs, 10, expected=[s(*want)])
    check("StringNormalizer", [s(*words).reshape(1, -1)], attrs, 10, expected=[s(*want).reshape(1, -1)])
    check("StringNormalizer", [s("tuesday")], attrs, 10, expected=[s("")])
    check("StringNormalizer", [s("tuesday").reshape(1, 1)], attrs, 10, expected=[s("").reshape(1, 1)])


def want_greek(word, case):
    """Greek capitals with accents stay as they are: only simple blocks are mapped."""
    return {"NONE": word, "LOWER": "Άλφα", "UPPER": "ΆΛΦΑ"}[case]


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("", [""], ["a"]),
        ("a*b+", ["b", "aab", "abb"], ["a", "ba"]),
        ("(a|bc)*d?", ["", "abcd", "bcbc"], ["b", "dd"]),
        ("[a-c]{2,3}", ["ab", "cab"], ["a", "abca"]),
        (r"\d+\.\d*", ["1.", "23.45"], [".5", "é.1"]),
        (r"[^\s@]+@[^\s@]+", ["a@b"], ["a b@c", "@"]),
        ("(?i)straße", ["STRAßE"], ["strasse"]),
        (".", ["é", "x"], ["", "\n", "ab"]),
        ("(?s).", ["\n"], [""]),
        (r"\x{e9}\Q.*\E", ["é.*"], ["éxx"]),
        (r"\bab\b.*", ["ab", "ab c"], ["abc"]),
        ("(?P<year>[[:digit:]]{4})(?:-[[:digit:]]{2}){2}", ["2024-01-02"], ["2024-1-2"]),
        ("^a$|^b$", ["a", "b"], ["ab"]),
        ("a{0}b??", ["", "b"], ["a"]),
        ("((((((((((a*)*)*)*)*)*)*)*)*)*)*b", ["b", "a" * 5000 + "b"], ["a" * 5000]),  # in linear time
    ],
)
def test_regex(pattern, yes, no):
    texts = s(*yes, *no)
    check("RegexFullMatch", [texts], {"pattern": pattern}, 20, expected=[np.array([t in yes for t in texts])])


@pytest.mark.parametrize("pattern", ["(", ")", "[", "a**", "*", "\\", "x{2,1}", "(?<=a)b", "[b-a]", r"\pL", "(a{1000}){1000}", "(" * 5000, "a{1001}"])
def test_regex_errors(pattern):
    fails_everywhere("regular expression", "RegexFullMatch", [s("a")], {"pattern": pattern}, 20)


def test_tfidf():
    attrs = {"mode": "TF", "min_gram_length": 1, "max_gram_length": 3, "max_skip_count": 1, "ngram_counts": [0, 3, 7],
             "ngram_indexes": [0, 1, 2, 3, 4, 5], "pool_int64s": [2, 3, 5, 5, 4, 5, 6, 7, 8, 6]}
    x = np.array([[2, 5, 4, 5, 6, 7, 8, 6], [1, 2, 3, 5, 5, 5, 4, 4]])
    for mode in ("TF", "IDF", "TFIDF"):
        for skip in (0, 1, 5):
            for low, high in [(1, 1), (2, 2), (1, 3), (2, 3)]:
                more = {"mode": mode, "max_skip_count": skip, "min_gram_length": low, "max_gram_length": high}
                check("TfIdfVectorizer", [x], attrs | more | {"weights": [1.5, 2, 3, 4, 5, 0.5]}, 9)
    check("TfIdfVectorizer", [x[0].astype(np.int32)], attrs, 9)
    words = {k: v for k, v in attrs.items() if k != "pool_int64s"} | {"pool_strings": list("bceedefghf")}
    check("TfIdfVectorizer", [s(*"bedefghf")], words, 9)
    fails_everywhere("pool", "TfIdfVectorizer", [s("a")], attrs, 9)
    fails_everywhere("ngram_counts", "TfIdfVectorizer", [x], attrs | {"ngram_counts": [0, 30]}, 9)
    fails_everywhere("index", "TfIdfVectorizer", [x], attrs | {"ngram_indexes": [0, 1, 2, 3, 4, -5]}, 9)
