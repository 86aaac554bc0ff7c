"""FlexAttention gives what attention with all scores in memory gives: on a CPU forward, on a GPU also its gradients."""

import json
from pathlib import Path

import pytest

import processes
from ladcast.nn.position import POSITION_ENCODINGS

pytestmark = pytest.mark.slow

# In a process of its own, as FlexAttention cannot trace functions whose shapes are checked while tests run.
PROGRAM = """
import json, sys, warnings
import torch
from torch.nn.attention.flex_attention import flex_attention as reference_flex
from ladcast.nn.attention import dense_attention, flex_attention
from ladcast.nn.position import EncodingOptions, TokenGrid, build_position_encoding

warnings.filterwarnings("ignore", "flex_attention called without torch.compile")
device, *names = sys.argv[1:]
on_gpu = device == "cuda"
flex = flex_attention if on_gpu else lambda *layer: reference_flex(*layer[:3], score_mod=layer[3])

def results(attention, encoding, grid, layer, unplaced):
    query, key, value, tokens = (tensor.detach().requires_grad_(on_gpu) for tensor in layer)
    positions = encoding(grid, tokens, unplaced=unplaced)
    if positions.scores is None:
        return
    query, key = positions.rotate(query), positions.rotate(key)
    mixed = attention(query, key, value, positions.scores(query, key))
    yield mixed
    if on_gpu:
        yield from torch.autograd.grad(mixed.square().sum(), [*encoding.parameters(), query, key, value])

torch.manual_seed(0)
with torch.device(device), torch.set_grad_enabled(on_gpu):
    whole = TokenGrid(torch.tensor([1.0, 2, 0]), torch.linspace(-1, 1, 4), torch.arange(6) * (2 * torch.pi / 6))
    differences = {}
    for name in names:
        torch.compiler.reset()
        for variant in ("plain", "area_weighted", "unplaced", "one_frame"):
            options = EncodingOptions(2, (4, 6, 6), spacing_deg=60.0, area_weighted=variant == "area_weighted")
            encoding = build_position_encoding(name, options)
            for parameter in encoding.parameters():
                torch.nn.init.normal_(parameter)
            grid = whole.last_frames(1) if variant == "one_frame" else whole
            tokens = 24 * len(grid.frames)
            layer = *torch.randn(3, 2, 2, tokens, 16), torch.randn(2, tokens, 32)
            unplaced = 24 if variant == "unplaced" else 0
            pairs = zip(*(results(f, encoding, grid, layer, unplaced) for f in (flex, dense_attention)), strict=True)
            off = [float((ours - theirs).abs().max() / theirs.abs().max()) for ours, theirs in pairs]
            differences[f"{name} {variant}"] = max(off, default=None)
print(json.dumps(differences))
"""


ON_GPU = [pytest.param("cuda", [name], id=f"cuda-{name}", marks=pytest.mark.gpu) for name in POSITION_ENCODINGS]


@pytest.mark.parametrize(("device", "names"), [pytest.param("cpu", [*POSITION_ENCODINGS], id="cpu"), *ON_GPU])
def test_flex_attention_equals_dense_attention(forks: None, device: str, names: list[str], tmp_path: Path):
    (tmp_path / "program.py").write_text(PROGRAM)
    program = processes.start(tmp_path / "program.py", [device, *names], tmp_path / "output")
    differences = json.loads(processes.finish(program, tmp_path / "output"))
    changed = {case: off for case, off in differences.items() if off is not None}
    assert len(differences) == 4 * len(names)
    assert {case.split()[0] for case in changed} == set(names)  # area weights change scores in all
    # The products of float32 may run in TF32 on a GPU.
    assert max(changed.values()) < (1e-5 if device == "cpu" else 1e-2), changed
