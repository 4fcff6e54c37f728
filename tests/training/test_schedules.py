"""Learning rates against torch's schedulers."""

import math

import pytest

from tiercel.training import SGD, Constant, Cosine, OneCycle, ReduceOnPlateau, StepDecay, WarmUp


def rates_of_torch(make, steps):
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    schedule = make(torch.optim.lr_scheduler, optimizer)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


@pytest.mark.parametrize(
    "own, make",
    [
        (StepDecay(0.1, 7, 0.5), lambda s, o: s.StepLR(o, 7, 0.5)),
        (Cosine(0.1, 40, 0.01), lambda s, o: s.CosineAnnealingLR(o, 40, 0.01)),
        (OneCycle(0.3, 40), lambda s, o: s.OneCycleLR(o, 0.3, total_steps=40)),
        (OneCycle(0.3, 40, 0.5, 10, 100), lambda s, o: s.OneCycleLR(o, 0.3, total_steps=40, pct_start=0.5, div_factor=10, final_div_factor=100)),
    ],
)
def test_as_torch(own, make):
    assert [own(i) for i in range(39)] == pytest.approx(rates_of_torch(make, 39), rel=1e-12, abs=1e-15)


def test_constant_and_warm_up():
    assert Constant(0.3)(1000) == 0.3
    assert [WarmUp(1.0, 4)(i) for i in range(6)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1])
    cosine = Cosine(1.0, 10)
    assert [WarmUp(cosine, 2)(i) for i in range(12)] == pytest.approx([cosine(i) * min((i + 1) / 3, 1) for i in range(12)])
    assert cosine(100) == 0


def test_plateau_as_torch():
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=2, min_lr=0.01)
    own = WarmUp(ReduceOnPlateau(0.1, factor=0.5, patience=2, minimum=0.01), 0)
    for loss in [3, 2, 2, 2, 2, 1, 1.5, 1, 1, 1, 1, 0.9999, 1, 1, 1, 1, 1, 1, 1, 1, 0.5, math.inf, 0.6, 0.7, 0.8]:
        theirs.step(loss)
        own.observe(loss)
        assert own(0) == pytest.approx(optimizer.param_groups[0]["lr"])
    state = own.state()
    again = WarmUp(ReduceOnPlateau(0.1, factor=0.5, patience=2, minimum=0.01), 0)
    again.load_state(state)
    assert again(0) == own(0)


@pytest.mark.parametrize(
    "make", [lambda: StepDecay(1, 0), lambda: Cosine(1, 0), lambda: OneCycle(1, 1), lambda: WarmUp(1.0, -1), lambda: ReduceOnPlateau(1, 1.5),
             lambda: Cosine(1, "a"), lambda: WarmUp("a", 1), lambda: WarmUp(Cosine, 1), lambda: ReduceOnPlateau(1, patience="a"), lambda: SGD(Cosine)],
)  # fmt: skip
def test_bad_settings(make):
    with pytest.raises(ValueError, match=r"is at least|takes 2 steps|is within"):
        make()
