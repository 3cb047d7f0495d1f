"""The compiled kernels against torch, number for number, and what happens where they cannot be had."""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_runs import outcome, settings_for, train
from torch import nn

from wn_dqn.nn import kernels
from wn_dqn.nn.kernels import Found, adamax_, find_kernels, unit_interval
from wn_dqn.nn.weight_norm import WeightNormLinear
from wn_dqn.runs import doctor, launch

# Where there is a compiler there must be kernels: one that refuses kernels.c is a failure, not a reason to skip.
needs_compiler = pytest.mark.skipif(not shutil.which(kernels._compiler()[0]), reason="no C compiler")
NONE = Found(None, "a test does without")


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of compiled kernels with nothing in it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("WN_DQN_KERNELS", raising=False)
    return tmp_path / "wn_dqn"


@pytest.fixture
def all_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels are taken whatever they compute: for tests of where they come from."""
    monkeypatch.setattr(kernels, "_agree_with_torch", lambda _kernels: True)


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def find_anew() -> Found:
    """What a new process would find."""
    return find_kernels.__wrapped__()


numbers = st.lists(st.floats(width=32), min_size=1, max_size=40)
shares = st.floats(0.0, 1.0, exclude_max=True, width=32)


@needs_compiler
@given(data=st.data(), grad=numbers, beta1=shares, beta2=shares, eps=st.floats(0.0, 1.0, width=32))
def test_adamax_of_any_numbers_gives_torchs_numbers(
    data: st.DataObject, grad: list[float], beta1: float, beta2: float, eps: float
) -> None:
    """Infinities, NaN and subnormal numbers among them, in vectors and in what is left over."""
    same_length = st.lists(st.floats(width=32), min_size=len(grad), max_size=len(grad))
    x, m, u, d = (torch.tensor(each).repeat(35) for each in [*(data.draw(same_length) for _ in range(3)), grad])
    u.abs_()  # as it is, and -0 never: torch's maximum of -0 and 0 is 0
    ours, reference = [x.clone(), d.clone(), m.clone(), u.clone()], nn.Parameter(x.clone())
    adamax_([[each] for each in ours], (beta1, beta2), eps, [1e-3 / (1.0 - beta1)])
    optimizer = torch.optim.Adamax([reference], lr=1e-3, betas=(beta1, beta2), eps=eps, foreach=False)
    optimizer.state[reference] = {"step": torch.tensor(0.0), "exp_avg": m.clone(), "exp_inf": u.clone()}
    reference.grad = d.clone()
    optimizer.step()
    state = optimizer.state[reference]
    for our, their in zip(ours, (reference, d, state["exp_avg"], state["exp_inf"]), strict=True):
        assert torch.allclose(our, their, rtol=0, atol=0, equal_nan=True)


@needs_compiler
@pytest.mark.parametrize("size", [32_768, 32_769, 200_001])
def test_adamax_in_two_threads_gives_torchs_numbers(size: int, two_threads: None) -> None:
    generator = torch.Generator().manual_seed(size)
    long, short = torch.randn(4, size, generator=generator), torch.randn(4, 5, generator=generator)
    ours = [[a.clone(), b.clone()] for a, b in zip(long, short, strict=True)]
    theirs = [[a.clone(), b.clone()] for a, b in zip(long, short, strict=True)]
    adamax_(ours, (0.5, 0.999), 1e-8, [1e-3, 2e-3])
    kernels._torch_adamax_(theirs, (0.5, 0.999), 1e-8, [1e-3, 2e-3])
    for our, their in zip(ours, theirs, strict=True):
        assert all(map(torch.equal, our, their))


def test_adamax_takes_other_types_and_layouts() -> None:
    """What the kernel is not made for, torch does: doubles, halves, gaps, and layouts that are not the same for all."""
    square = torch.arange(1.0, 17.0).view(4, 4)
    for param in (square.double(), square.bfloat16(), square.T, square[:, ::2]):
        others = [torch.ones(param.shape, dtype=param.dtype) for _ in range(3)]
        before = param.clone()
        adamax_([[each] for each in (param, *others)], (0.5, 0.999), 0.0, [0.5])
        assert torch.equal(param, before - 0.5)  # m = u = 1


def test_adamax_tells_torch_that_it_changed_a_tensor() -> None:
    """Norms are kept as long as v does not change, and autograd refuses a saved tensor that did."""
    layer = WeightNormLinear(3, 2)
    with torch.no_grad():
        assert layer.v_norm().tolist() == [1.0, 1.0]
        adamax_([[layer.v], *([torch.ones(2, 3)] for _ in range(3))], (0.5, 0.999), 1e-8, [-1.0])
        assert layer.v_norm().tolist() == pytest.approx([6**0.5] * 2)  # (1, 0, 0) + (1, 1, 1)
    x = torch.ones(4, requires_grad=True)
    y = x.square().sum()
    with torch.no_grad():
        adamax_([[x], *([torch.ones(4)] for _ in range(3))], (0.5, 0.999), 1e-8, [1.0])
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("batch", [1, 3, 64])
def test_bytes_are_divided_as_by_torch(batch: int, threads: int) -> None:
    """Both stacks of a minibatch, which are views of five frames, and whatever else an observation may be."""
    generator = torch.Generator().manual_seed(batch)
    frames = torch.randint(0, 256, (batch, 5, 84, 84), dtype=torch.uint8, generator=generator)
    torch.set_num_threads(threads)
    try:
        for stacks in (frames[:, :4], frames[:, 1:], frames[:, 1:].contiguous(), frames[:, ::2], frames[:, :4].mT):
            for dtype in (torch.float32, torch.float64):
                x = unit_interval(stacks, dtype)
                assert x.dtype == dtype
                assert torch.equal(x, stacks.to(dtype) / 255.0)
                assert x.is_contiguous(memory_format=torch.channels_last)
    finally:
        torch.set_num_threads(1)


@needs_compiler
def test_they_change_nothing_that_training_leaves_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(settings_for(), tmp_path / "with")
    monkeypatch.setattr(kernels, "find_kernels", lambda: NONE)
    train(settings_for(), tmp_path / "without")
    with_kernels, without = (outcome(tmp_path / name) for name in ("with", "without"))
    for name, tensor in with_kernels["state"]["agent"]["online"].items():
        assert torch.equal(tensor, without["state"]["agent"]["online"][name]), name
    assert with_kernels["tables"] == without["tables"]


@needs_compiler
@pytest.mark.usefixtures("empty_cache")
def test_they_agree_with_torch_where_torch_fuses_a_multiplication_and_an_addition() -> None:
    """As it does with AVX2 and AVX-512. Without, it rounds twice, and the kernels are refused."""
    found = find_anew()
    if torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512"):
        assert found.kernels is not None, found.why_not
    else:
        assert found.kernels is not None or found.why_not == "as compiled here they round otherwise than torch"


@needs_compiler
@pytest.mark.usefixtures("all_agree")
def test_they_are_compiled_once(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_anew().kernels is not None
    library, digest = sorted(empty_cache.iterdir())
    assert digest.read_text() == hashlib.sha256(library.read_bytes()).hexdigest()
    monkeypatch.setattr(kernels, "_compiled", lambda *_: pytest.fail("compiled again"))
    assert find_anew().kernels is not None
    assert sorted(empty_cache.iterdir()) == [library, digest]


@needs_compiler
@pytest.mark.usefixtures("all_agree")
@pytest.mark.survives("compiled kernels that are damaged in the cache", "they are never loaded, and compiled again")
@pytest.mark.parametrize("share", [0.01, 0.5, 0.9])
def test_a_damaged_library_is_compiled_anew(
    share: float, empty_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To load half of one is a bus error."""
    find_anew()
    library, digest = sorted(empty_cache.iterdir())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))  # this process has the first one in memory
    damaged = tmp_path / "other" / "wn_dqn" / library.name
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(library.read_bytes()[: int(share * library.stat().st_size)])
    damaged.with_name(digest.name).write_bytes(digest.read_bytes())
    assert find_anew().kernels is not None
    assert damaged.read_bytes() == library.read_bytes()


@needs_compiler
@pytest.mark.skipif(sys.platform == "win32", reason="links need a right there")
@pytest.mark.usefixtures("all_agree")
def test_no_link_in_the_cache_is_written_through(empty_cache: Path, tmp_path: Path) -> None:
    find_anew()
    names = [path.name for path in empty_cache.iterdir()]
    (tmp_path / "victim").write_text("mine")
    for name in names:
        (empty_cache / name).unlink()
        (empty_cache / name).symlink_to(tmp_path / "victim")
    assert find_anew().kernels is not None
    assert (tmp_path / "victim").read_text() == "mine"


@pytest.mark.skipif(sys.platform == "win32", reason="a POSIX shell is needed")
@pytest.mark.survives("a C compiler that hangs", "a word after a few seconds, and torch does the work")
def test_a_compiler_that_hangs_is_not_waited_for(
    empty_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(kernels, "_TIME_LIMIT_S", 0.1)
    monkeypatch.setenv("CC", "sh -c 'sleep 500; true'")
    found = find_anew()
    assert found == Found(None, "sh has not ended after 0 s")
    assert list(empty_cache.iterdir()) == []
    monkeypatch.setattr(launch, "find_kernels", lambda: found)
    assert train(settings_for(learning={"total_steps": 8}), tmp_path / "run") == 0
    assert "no kernels, training is slower: sh has not ended after 0 s" in capsys.readouterr().err


@needs_compiler
@pytest.mark.usefixtures("all_agree", "empty_cache")
def test_without_a_cache_they_serve_this_process_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert find_anew().kernels is not None
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("compiler", "reason"),
    [
        ("no-such-compiler", "No such file or directory: 'no-such-compiler'"),
        ("false", "false failed: exit status 1"),
        ("sh -c 'echo not today >&2; exit 3'", "sh failed: not today"),
        ("true", "kernels.so"),  # leaves nothing behind
    ],
)
def test_without_a_compiler_torch_does_it(
    compiler: str, reason: str, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", compiler)
    found = find_anew()
    assert found.kernels is None
    assert reason in found.why_not
    assert list(empty_cache.iterdir()) == []


def test_a_compiler_that_is_no_command_is_none(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "gcc 'unclosed")
    assert find_anew() == Found(None, "No closing quotation")


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("fmaf(w, d[i] - m[i], m[i])", "m[i] + w * (d[i] - m[i])"),
        ("fmaf(w - 1.0f, d[i] - m[i], d[i])", "m[i] + w * (d[i] - m[i])"),
        (" | (size != size)", ""),
        ("/ 255.0f", "* (1.0f / 255.0f)"),
    ],
)
@needs_compiler
def test_other_numbers_than_torchs_are_refused(
    right: str, wrong: str, empty_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sums that are rounded once more, a NaN that is lost, a reciprocal: one bit, here and there."""
    source = kernels._SOURCE.read_text()
    assert right in source
    monkeypatch.setattr(kernels, "_SOURCE", tmp_path / "kernels.c")
    kernels._SOURCE.write_text(source.replace(right, wrong))
    assert find_anew() == Found(None, "as compiled here they round otherwise than torch")


def test_they_can_be_left_out(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WN_DQN_KERNELS", "0")
    assert find_anew() == Found(None, "WN_DQN_KERNELS is 0")
    assert not empty_cache.exists()


@pytest.mark.parametrize("why_not", ["", "a test does without"])
def test_doctor_tells(why_not: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Found(None if why_not else kernels.Kernels(mock.MagicMock()), why_not)
    monkeypatch.setattr(doctor, "find_kernels", lambda: found)
    monkeypatch.setattr(doctor, "expected_bytes", lambda *_, compressed: 2**30)
    lines = [line for _, line in zip(range(5), doctor.examine(torch.device("cpu")), strict=False)]
    assert f"kernels: {f'none, training is slower ({why_not}); gcc brings them' if why_not else 'compiled'}" in lines
