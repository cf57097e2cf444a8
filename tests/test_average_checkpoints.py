import shutil

import pytest
import torch
from safetensors.torch import save_file

from diffretouch import DiffRetouchPipeline
from diffretouch.training.average_checkpoints import average_checkpoints, main, mean_of

from .tiny import tiny_pipeline


@pytest.fixture
def trained(tmp_path):
    """A model and three checkpoints whose EMA weights are it, plus 1, plus 3 and plus 8."""
    pipe = tiny_pipeline()
    pipe.save_pretrained(tmp_path)
    parameters = [*pipe.unet.parameters(), *pipe.grid_head.parameters()]
    for step, more in ((100, 1.0), (200, 3.0), (1000, 8.0)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        save_file({str(i): p.detach() + more for i, p in enumerate(parameters)}, folder / "ema.safetensors")
    return tmp_path, pipe


@pytest.mark.parametrize("from_step,steps,more", [(0, [100, 200, 1000], 4.0), (200, [200, 1000], 5.5)])
def test_mean_of_the_checkpoints_from_a_step_on(trained, from_step, steps, more):
    folder, pipe = trained
    averaged, used = average_checkpoints(folder, from_step)
    assert used == steps
    for module in ("unet", "grid_head"):
        pairs = zip(getattr(averaged, module).parameters(), getattr(pipe, module).parameters(), strict=True)
        assert all(torch.allclose(mean, own + more, atol=1e-6) for mean, own in pairs)
    for name, buffer in pipe.grid_head.named_buffers():
        assert torch.equal(dict(averaged.grid_head.named_buffers())[name], buffer)


def test_mean_of_two_trainings(trained, tmp_path_factory, capsys):
    folder, pipe = trained
    other = tmp_path_factory.mktemp("other")
    shutil.copytree(folder, other, dirs_exist_ok=True)
    shutil.rmtree(other / "checkpoint-1000")  # 1 and 3 are left
    main([str(folder), str(other), "--from_step", "200", "0", "--save_dir", str(folder / "averaged")])
    averaged = DiffRetouchPipeline.from_pretrained(folder / "averaged")
    pairs = zip(averaged.unet.parameters(), pipe.unet.parameters(), strict=True)
    assert all(torch.allclose(mean, own + (5.5 + 2) / 2, atol=1e-6) for mean, own in pairs)
    assert f"steps 100, 200 of {other}" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        main([str(folder), str(other), "--from_step", "0", "0", "0", "--save_dir", str(folder / "again")])
    with pytest.raises(ValueError, match="different models"):
        mean_of([tiny_pipeline(), tiny_pipeline(tokens=4)])


def test_writes_a_model_that_retouches(trained, capsys):
    folder, _ = trained
    for checkpoint in folder.glob("checkpoint-*"):  # weights that are those of the model, so that it can be run
        pipe = DiffRetouchPipeline.from_pretrained(folder)
        parameters = [*pipe.unet.parameters(), *pipe.grid_head.parameters()]
        save_file({str(i): p.detach().clone() for i, p in enumerate(parameters)}, checkpoint / "ema.safetensors")
    main([str(folder), "--from_step", "200", "--save_dir", str(folder / "averaged")])
    assert "200, 1000" in capsys.readouterr().out
    averaged = DiffRetouchPipeline.from_pretrained(folder / "averaged")
    photo = torch.rand(1, 3, 24, 20, generator=torch.Generator().manual_seed(0))
    results = (
        model(photo, generator=torch.Generator().manual_seed(0), output_type="pt").images for model in (averaged, pipe)
    )
    torch.testing.assert_close(*results)


def test_refuses(trained):
    folder, _ = trained
    with pytest.raises(ValueError, match="`from_step` 300 leaves 1 checkpoints"):
        average_checkpoints(folder, 300)
    with pytest.raises(SystemExit, match="`--save_dir`"):
        main([str(folder), "--save_dir", str(folder)])
    save_file({"0": torch.zeros(3)}, folder / "checkpoint-200" / "ema.safetensors")
    with pytest.raises(ValueError, match="another model"):
        average_checkpoints(folder, 0)
    (folder / "checkpoint-200" / "ema.safetensors").write_bytes(b"half a file")
    with pytest.raises(SystemExit, match="checkpoint-200 cannot be read"):
        main([str(folder), "--save_dir", str(folder / "averaged")])
    assert not (folder / "averaged").exists()
