"""Meters of memory and arithmetic, against what is known by hand."""

import torch

from ladcast.meters import PeakMemory, flop_counter


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
    with flop_counter() as operations, torch.no_grad():
        torch.nn.functional.scaled_dot_product_attention(query, query, query)
    assert operations.get_total_flops() == 2 * 2 * 2 * 10 * 10 * 8  # two products, multiply and add, heads
