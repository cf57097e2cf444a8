"""`diffretouch learn`: a preset from pairs, where it helps."""

from PIL import Image

from diffretouch.photo import load_photo, save_photo
from diffretouch.settings import read_preset


def test_learn(run, shoot, model, tmp_path):
    (shoot / "2.jpg").unlink()
    for path in (shoot / "sub").iterdir():
        Image.open(path).resize((64, 64)).save(path, quality=95)
    finished, preset = tmp_path / "finished", tmp_path / "me.json"
    assert run("batch", shoot / "sub", finished, "--model", model, "--strength", 0.5)[0] == 0
    code, printed, err = run("learn", shoot / "sub", finished, "-o", preset, "--model", model)
    assert code == 0, err
    assert "without the preset (automatic)" in printed and "from other pairs only" in printed
    assert read_preset(preset).strength < 0.95 and read_preset(preset).revision
    assert "not written" not in err
    assert run("batch", shoot / "sub", finished, "--model", model, "--overwrite")[0] == 0
    for path, gain in zip(sorted(finished.iterdir()), (0.8, 1.25), strict=True):  # looks that contradict each other
        save_photo(load_photo(path).pixels * gain, path, overwrite=True)
    code, printed, err = run("learn", shoot / "sub", finished, "-o", tmp_path / "none.json", "--model", model)
    assert code == 1 and not (tmp_path / "none.json").exists(), printed
    held_out = next(line for line in printed.splitlines() if "from other pairs only" in line).split()[0]
    assert f"the error is {held_out} with it" in err and "--init small --dataset pairs" in " ".join(err.split())
    forced = run("learn", shoot / "sub", finished, "-o", tmp_path / "none.json", "--model", model, "--force")
    assert forced[0] == 0 and (tmp_path / "none.json").exists() and "not written" not in forced[2]
    code, _, err = run("learn", shoot / "sub", finished, "-o", preset, "--model", model)
    assert code == 2 and "--overwrite" in err
    (finished / "4.jpg").write_bytes(b"")
    code, _, err = run("learn", shoot / "sub", finished, "-o", tmp_path / "x.json", "--model", model)
    assert code == 1 and "unpaired" in err
