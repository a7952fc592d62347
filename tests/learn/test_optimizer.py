"""The calibration's AdamW against torch's, with rows added on the way."""

import torch

from edgeseq_core.learn.optimizer import CalibrationOptimizer


def test_steps_are_those_of_torch_and_new_rows_start_without_moments() -> None:
    draw = torch.Generator().manual_seed(1)
    start = {"a": torch.randn(3, 4, generator=draw), "b": torch.randn(5, generator=draw)}
    ours = {name: tensor.clone() for name, tensor in start.items()}
    theirs = {name: tensor.clone().requires_grad_(True) for name, tensor in start.items()}
    optimizer = CalibrationOptimizer(learning_rate=0.1, weight_decay=0.01)
    torchs = torch.optim.AdamW(theirs.values(), lr=0.1, betas=(0.9, 0.98), weight_decay=0.01)
    optimizer.leaves(ours)
    for at in range(8):
        if at == 4:  # through a checkpoint, and a row more
            moments = {
                kind: {name: t.clone() for name, t in tensors.items()}
                for kind, tensors in optimizer.state().items()
            }
            optimizer = CalibrationOptimizer(learning_rate=0.1, weight_decay=0.01)
            optimizer.load(moments, 4)
            ours["a"] = torch.cat([ours["a"].detach(), torch.zeros(1, 4)])
            optimizer.leaves(ours)
            assert not optimizer.state()["first"]["a"][3].any()
        for name, leaf in ours.items():
            gradient = torch.randn(theirs[name].shape, generator=draw)
            theirs[name].grad = gradient
            leaf.grad = torch.cat([gradient, torch.ones(1, 4)]) if leaf.shape[0] == 4 else gradient
        torchs.param_groups[0]["lr"] = 0.1 / (at + 1)
        torchs.step()
        optimizer.step(1 / (at + 1))
    assert optimizer.count == 8
    for name, leaf in ours.items():
        kept = leaf.detach()[: theirs[name].shape[0]]
        assert torch.allclose(kept, theirs[name].detach(), atol=1e-6)
    assert ours["a"][3].abs().max() > 0.01
