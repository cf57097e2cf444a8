"""Settings that go from file to file: presets, sidecars, what a photo tells, a reference."""

import numpy as np
from PIL import Image

from diffretouch.photo import load_photo
from diffretouch.settings import read_preset, settings_of, sidecar_path

from .photo_files import pixels


def test_like_repeats_what_a_photo_tells(run, photo, model, tmp_path):
    first, other = tmp_path / "first.png", tmp_path / "other.png"
    options = ("--brightness", 0.4, "--contrast", -0.2, "--strength", 0.8, "--seed", 9, "--steps", 3)
    assert run("retouch", photo, "-o", first, "--model", model, *options)[0] == 0
    assert run("retouch", photo, "-o", other, "--model", model, "--like", first)[0] == 0
    assert (pixels(first) == pixels(other)).all()
    said = settings_of(load_photo(other))
    assert said == settings_of(load_photo(first)) and (said.seed, said.steps, said.strength) == (9, 3, 0.8)
    assert said.c == {"colorfulness": 0, "contrast": -0.2, "temperature": 0, "brightness": 0.4}
    command = ("retouch", photo, "-o", other, "--overwrite", "--like", first)
    assert run(*command, "--model", model, "--brightness", 0, "--seed", 1)[0] == 0  # options count more
    said = settings_of(load_photo(other))
    assert said.c["brightness"] == 0 and said.c["contrast"] == -0.2 and said.seed == 1
    code, _, err = run(*command)  # a model that a photo names is not fetched
    assert code == 1 and "--model" in err and "Loading" not in err
    code, _, err = run(*command, "--model", "small")
    assert code == 0 and "from another model" in err
    code, _, err = run("retouch", photo, "--like", photo)
    assert code == 1 and "does not say how it was retouched" in err


def test_presets_and_sidecars(run, photo, model, tmp_path):
    preset, out = tmp_path / "mine.json", tmp_path / "out.png"
    options = ("--temperature", 0.3, "--save-preset", preset, "--sidecar", "--samples", 2)
    code, printed, _ = run("retouch", photo, "-o", out, "--model", model, *options)
    outs = [tmp_path / "out-1.png", tmp_path / "out-2.png"]
    assert code == 0 and printed.split() == [*map(str, outs), str(preset)]
    sidecars = [read_preset(sidecar_path(path)) for path in outs]
    assert [sidecar.seed for sidecar in sidecars] == [0, 1] and sidecars[0].photo == "photo.jpg"
    assert sidecars[1].c == read_preset(preset).c and read_preset(preset).photo is None
    again = tmp_path / "again.png"
    assert run("retouch", photo, "-o", again, "--model", model, "--preset", sidecar_path(outs[1]))[0] == 0
    assert np.abs(pixels(again) - pixels(outs[1])).max() <= 1
    assert settings_of(load_photo(again)).photo is None
    for arguments in (("--save-preset", preset), ("-o", again, "--sidecar"), ("--like", again, "--preset", preset)):
        kept = preset.read_text()
        sidecar_path(again).write_text("{}")
        code, _, err = run("retouch", photo, "--model", model, *arguments)
        assert code == 2 and err and preset.read_text() == kept and sidecar_path(again).read_text() == "{}"
    preset.write_text('{"format": 2}')
    code, _, err = run("retouch", photo, "--model", model, "--preset", preset)
    assert code == 1 and "a newer diffretouch wrote them" in err


def test_a_mask_that_a_photo_names_is_not_opened(run, photo, model, tmp_path):
    Image.new("L", (16, 16), 255).save(tmp_path / "mask.png")
    out, region = tmp_path / "out.png", f"{tmp_path / 'mask.png'}:brightness=0.5"
    assert run("retouch", photo, "-o", out, "--model", model, "--region", region)[0] == 0
    command = ("retouch", photo, "-o", tmp_path / "again.png", "--model", model, "--like", out)
    code, _, err = run(*command)
    assert code == 1 and "mask of its own" in err and "--region" in err
    assert run(*command, "--region", "luminosity=0-0.5:brightness=0.5")[0] == 0
    assert settings_of(load_photo(tmp_path / "again.png")).regions == ("luminosity=0-0.5:brightness=0.5",)


def test_reference(run, photo, tmp_path):
    finished, out = tmp_path / "finished.png", tmp_path / "out.png"
    c = ("--brightness", 0.6, "--temperature", -0.4)
    assert run("retouch", photo, "-o", finished, *c)[0] == 0
    code, _, err = run("retouch", photo, "-o", out, "--reference", finished, "--contrast", 0.25)
    assert code == 0 and "As the reference: " in err
    said = settings_of(load_photo(out)).c
    assert said["contrast"] == 0.25 and said["brightness"] > 0.3 and said["temperature"] < -0.2
    (tmp_path / "bad.jpg").write_bytes(b"")
    code, _, err = run("retouch", photo, "-o", out, "--overwrite", "--reference", tmp_path / "bad.jpg")
    assert code == 1 and "bad.jpg" in err and "Loading" not in err
