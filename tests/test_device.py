import pytest
import torch

from ladcast.device import FlopCounter, PeakMemory, compiles, find_device


def test_the_default_is_a_gpu_where_there_is_one():
    assert find_device().type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert find_device("cpu", local_rank=3) == torch.device("cpu")


@pytest.mark.parametrize("local_rank", [None, 1])
def test_a_gpu_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, local_rank: int | None):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ValueError, match=r"a GPU for device 'cuda', found none\. Use --device cpu, .*nvidia-smi"):
        find_device("cuda", local_rank)


def test_ranks_share_the_gpus_of_their_node(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert find_device("cuda", local_rank=3) == torch.device("cuda:1")
    assert find_device("cuda") == torch.device("cuda")
    assert find_device("cuda:1", local_rank=0) == torch.device("cuda:1")
    with pytest.raises(ValueError, match="'cuda:2', found 2"):
        find_device("cuda:2")


def test_an_unknown_name_shows_the_form():
    with pytest.raises(ValueError, match=r"cpu, cuda or cuda:1, got 'gpu'"):
        find_device("gpu")


@pytest.mark.slow
def test_where_nothing_compiles_the_reason_is_said_and_work_goes_on(monkeypatch: pytest.MonkeyPatch):
    def no_compiler(graph: object, inputs: object) -> None:
        raise RuntimeError("No working C++ compiler found")

    compiled = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function: compiled(function, backend=no_compiler))
    with pytest.warns(UserWarning, match=r"does not work on cpu \(.*No working C\+\+ compiler.*Nothing is compiled"):
        assert not compiles.__wrapped__(torch.device("cpu"))
    monkeypatch.setattr(torch, "compile", lambda function: compiled(function, backend="eager"))
    assert compiles.__wrapped__(torch.device("cpu"))


def test_peak_memory_forgets_what_is_gone():
    with PeakMemory() as memory:
        for _ in range(5):
            torch.zeros(1000)
        kept = [torch.zeros(1000) for _ in range(3)]
    assert memory.peak_bytes == len(kept) * 4000


def test_weights_and_their_views_are_not_activations():
    layer = torch.nn.Linear(100, 100)
    with PeakMemory() as memory, torch.no_grad():
        layer(torch.zeros(1, 100))
        layer.weight.split(10)
    assert memory.peak_bytes == 2 * 400


def test_attention_is_counted():
    query = torch.randn(1, 2, 10, 8)
    with FlopCounter() as operations, torch.no_grad():
        torch.nn.functional.scaled_dot_product_attention(query, query, query)
    assert operations.flops == 2 * 2 * 2 * 10 * 10 * 8  # two products, multiply and add, heads
