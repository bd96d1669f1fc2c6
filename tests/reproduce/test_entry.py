import math

import pytest

from rootflow.errors import InputError
from rootflow.reproduce import Claim, Entry, Paper

PAPER = Paper("Nobody", 1999, "Nothing")


@pytest.mark.parametrize(
    ("holds", "good", "bad", "words"),
    [
        (("<", 1.0), 0.9, 1.0, "below 1"),
        (("<=", 1.0), 1.0, 1.1, "at most 1"),
        ((">", 1.0), 1.1, 1.0, "above 1"),
        ((">=", 1e-9), 1e-9, 0.0, "at least 1e-09"),
        (("between", 4.8, 5.2), 4.8, 5.3, "between 4.8 and 5.2"),
    ],
)
def test_a_claim_judges_a_number(holds, good, bad, words):
    claim = Claim("c", "text", 1, holds)
    assert claim.verdict(good) == "holds"
    assert claim.verdict(bad) == "falls short"
    assert claim.verdict(None) == "not measured"
    assert claim.criterion == words


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_never_holds(value):
    assert Claim("c", "text", 1, (">=", -math.inf)).verdict(value) == "falls short"
    assert Claim("c", "t", 1, lambda x: True, criterion="ever").verdict(value) == "falls short"


def test_a_claim_judges_a_word_by_a_function():
    claim = Claim("c", "text", "faster", lambda x: x == "faster", criterion="it is faster")
    assert claim.verdict("faster") == "holds" and claim.verdict("slower") == "falls short"
    with pytest.raises(InputError, match="compares a number"):
        Claim("c", "text", 1, ("<", 1.0)).verdict("faster")


@pytest.mark.parametrize("holds", [("~", 1.0), ("between", 1.0), ("<",)])
def test_a_condition_that_is_none_is_refused(holds):
    with pytest.raises(InputError, match="holds must be"):
        Claim("c", "text", 1, holds)


def test_a_function_needs_words():
    with pytest.raises(InputError, match="criterion"):
        Claim("c", "text", 1, lambda x: True)


def test_names_and_claims_of_an_entry_are_checked():
    claim = Claim("c", "text", 1, ("<", 1.0))
    with pytest.raises(InputError, match="dashes"):
        Entry("Not_this", "T", PAPER, (claim,), lambda report, quick: None)
    with pytest.raises(InputError, match="its own id"):
        Entry("twice", "T", PAPER, (claim, claim), lambda report, quick: None)


def test_links():
    assert Paper("A", 2000, "T", arxiv="2105.15183").link == "https://arxiv.org/abs/2105.15183"
    assert Paper("A", 2000, "T", doi="10.1/2").link == "https://doi.org/10.1/2"
    assert Paper("A", 2000, "T").link is None
