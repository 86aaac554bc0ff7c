import pytest
import torch

from ladcast.device import find_device


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
