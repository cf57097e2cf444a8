"""`diffretouch lut`: looks baked and applied."""

import numpy as np
from PIL import Image

from .photo_files import pixels


def test_lut(run, photo, model, tmp_path):
    from diffretouch import Lut3D

    code, printed, err = run("lut", photo, "--model", "csrnet")
    look = photo.with_suffix(".cube")
    assert code == 0 and printed.strip() == str(look) and "levels of 255" in err and Lut3D.load(look).size == 33
    assert run("lut", photo, "--model", "csrnet")[0] == 2  # it exists
    applied, retouched = tmp_path / "applied.png", tmp_path / "retouched.png"
    assert run("lut", photo, "--apply", look, "-o", applied)[0] == 0
    assert run("retouch", photo, "-o", retouched, "--model", "csrnet")[0] == 0
    assert np.abs(pixels(applied) - pixels(retouched)).max() <= 10
    assert run("lut", photo, "--apply", look, "-o", tmp_path / "none.png", "--strength", 0)[0] == 0
    assert (pixels(tmp_path / "none.png") == pixels(photo)).all()

    hald = tmp_path / "hald.png"
    assert run("lut", photo, "--model", "csrnet", "--size", 36, "-o", hald)[0] == 0
    assert Image.open(hald).size == (216, 216)
    assert run("lut", photo, "--apply", hald, "-o", tmp_path / "by_hald.png")[0] == 0
    assert np.abs(pixels(tmp_path / "by_hald.png") - pixels(retouched)).max() <= 10

    code, _, err = run("lut", photo, "-o", tmp_path / "grid.cube", "--model", model, "--brightness", 0.5, "--size", 9)
    assert code == 0 and "no table can hold" in err
    nodes = [("-o", tmp_path / name, "--size", 33) for name in ("h.png", "h.xmp")]
    for wrong in (*nodes, ("--model", "csrnet", "--brightness", 1), ("--size", 300)):
        assert run("lut", photo, "-o", tmp_path / "w.cube", *wrong)[0] == 2, wrong
    (tmp_path / "bad.cube").write_text("LUT_3D_SIZE 2\n0 0 0\n")
    code, _, err = run("lut", photo, "--apply", tmp_path / "bad.cube", "-o", tmp_path / "w.png")
    assert code == 1 and "8 lines" in err


def test_looks_for_other_software(run, photo, model, tmp_path):
    other, where = tmp_path / "other.jpg", tmp_path / "where.png"
    Image.fromarray(255 - pixels(photo).astype(np.uint8)).save(other)
    profile = tmp_path / "look.xmp"
    code, printed, err = run("lut", photo, other, "--model", "csrnet", "-o", profile, "--error-picture", where)
    assert code == 0 and printed.split() == [str(profile), str(where)]
    assert "On these 2 photos the table differs" in err and "no table can hold" in err
    assert "after the raw converter's tone curve" in err and "no local part" in err
    assert Image.open(where).size == Image.open(photo).size
    assert run("lut", other, "--apply", profile, "-o", tmp_path / "by_profile.png")[0] == 0
    code, printed, _ = run("lut", photo, "--model", "csrnet", "-o", tmp_path / "look.pp3", "--strength", 0.5)
    assert code == 0 and printed.split() == [str(tmp_path / "look.pp3"), str(tmp_path / "look.png")]
    assert "Strength=50" in (tmp_path / "look.pp3").read_text()
    (tmp_path / "look.pp3").unlink()
    code, _, err = run("lut", photo, "--model", "csrnet", "-o", tmp_path / "look.pp3")
    assert code == 2 and "exists" in err and "Loading" not in err  # the image beside
    for wrong in (("-o", tmp_path / "x.gif"), ("-o", tmp_path / "x.clf", "--photo-domain"),
                  ("--error-picture", tmp_path / "x.jpg", "-o", tmp_path / "x.cube")):  # fmt: skip
        code, _, err = run("lut", photo, "--model", "csrnet", *wrong)
        assert code in (1, 2) and "Loading" not in err, wrong
