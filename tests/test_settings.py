"""Settings: what is written is read back, what is wrong is refused, what a file names is not trusted."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffretouch import __version__
from diffretouch.attributes import ATTRIBUTES
from diffretouch.photo import load_photo, save_photo, xmp
from diffretouch.settings import (
    Settings,
    model_revision,
    read_preset,
    resolved,
    seed_of,
    settings_of,
    sidecar_path,
    use_scheduler,
    write_preset,
)

from .tiny import tiny_pipeline

PHOTO = Path(__file__).parent / "photos" / "gb82_dog-lossless.jpg"
FULL = Settings(c={"brightness": 0.1 + 0.2, "contrast": -1}, strength=0.7, exposure=-0.25, white_balance=(0.1, -0.2),
                seed=2**63 - 1, steps=4, scheduler="DDIMScheduler", model="small", revision="abc",
                regions=("luminosity=0.6-1:contrast=0.2",),
                refine_regions=True, photo='"<&>é\u65e5\U0001f4f7.jpg', version="0.1.0")  # fmt: skip


@pytest.mark.parametrize("settings", [FULL, Settings(), Settings(c={}), Settings(strength=0.0, seed=0)])
@pytest.mark.parametrize("indent", [None, 1])
def test_json_keeps_every_value(settings, indent):
    assert Settings.from_json(settings.to_json(indent)) == settings
    said = json.loads(settings.to_json(indent))
    assert said.pop("format") == 1 and None not in said.values()


@given(st.dictionaries(st.sampled_from(ATTRIBUTES), st.floats(-3, 3)), st.floats(0, 2), st.integers(0, 2**63 - 1))
def test_numbers_come_back_exactly(c, strength, seed):
    settings = Settings(c=c, strength=strength, seed=seed)
    assert Settings.from_json(settings.to_json()) == settings


def test_c_is_a_copy_in_the_order_of_the_attributes():
    c = {"brightness": 1, "contrast": 0.5}
    settings = Settings(c=c)
    c["brightness"] = 2
    assert list(settings.c.items()) == [("contrast", 0.5), ("brightness", 1.0)]


@pytest.mark.parametrize(
    "values, message",
    [
        ({"c": {"exposure": 1}}, "`c` may name colorfulness"),
        ({"c": {"contrast": 3.01}}, r"`c: contrast` must be a number in \[-3, 3\]"),
        ({"c": {"contrast": float("nan")}}, "c: contrast"),
        ({"c": {"contrast": True}}, "c: contrast"),
        ({"c": {"contrast": "1"}}, "c: contrast"),
        ({"c": [0, 0, 0, 0]}, "`c` must be numbers by attribute name"),
        ({"strength": 2.1}, "`strength`"),
        ({"strength": float("inf")}, "`strength`"),
        ({"exposure": -5}, "`exposure`"),
        ({"any_style": 1.5}, "`any_style` must be true or false"),
        ({"any_style": True, "c": {"contrast": 1}}, "`any_style` leaves the attributes to the noise"),
        ({"any_style": True, "regions": ["luminosity=0-1:contrast=1"]}, "`any_style` leaves"),
        ({"white_balance": [0.1]}, "`white_balance` must be two numbers"),
        ({"white_balance": [0.1, 2]}, "`white_balance`"),
        ({"seed": -1}, "`seed` must be a whole number"),
        ({"seed": 2**63}, "`seed`"),
        ({"seed": 1.0}, "`seed`"),
        ({"steps": 0}, "`steps`"),
        ({"steps": False}, "`steps`"),
        ({"model": 7}, "`model` must be text"),
        ({"regions": "luminosity=0-1:contrast=1"}, "`regions`"),
        ({"regions": [1]}, "`regions`"),
        ({"refine_regions": "yes"}, "`refine_regions`"),
    ],
)
def test_wrong_values_are_named(values, message):
    with pytest.raises(ValueError, match=message):
        Settings(**values)
    with pytest.raises(ValueError, match=message):
        Settings.from_json(json.dumps({"format": 1, **values}))


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "no settings in JSON"),
        ("brighter", "no settings in JSON"),
        ("[" * 100_000, "no settings in JSON"),
        ("[]", '"format"'),
        ('{"strength": 1}', '"format"'),
        ('{"format": 2, "strength": 1, "mood": "new"}', "format 2, this version knows 1: a newer diffretouch"),
        ('{"format": true}', "format True"),
        ('{"format": "1"}', "format '1'"),
        ('{"format": 1, "strenght": 1}', "got strenght"),
        ('{"format": 1, "seed": 1e400}', "`seed`"),
        ('{"format": 1, "strength": NaN}', "`strength`"),
    ],
)
def test_other_texts_are_refused(text, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        Settings.from_json(text)
    (tmp_path / "preset.json").write_text(text)
    with pytest.raises(ValueError, match="preset.json' is no preset: "):
        read_preset(tmp_path / "preset.json")


def test_over_takes_what_is_said():
    base = Settings(c={"contrast": 0.5, "brightness": 0.1}, strength=0.5, steps=4)
    over = Settings(c={"contrast": -0.5}, seed=3, strength=0.0).over(base)
    assert over == Settings(c={"contrast": -0.5, "brightness": 0.1}, strength=0.0, steps=4, seed=3)
    assert Settings().over(base) == base and base.over(Settings()) == base


def test_presets_are_files(tmp_path):
    path = tmp_path / "preset.json"
    write_preset(FULL, path)
    assert read_preset(path) == FULL and [p.name for p in tmp_path.iterdir()] == ["preset.json"]
    with pytest.raises(ValueError, match="`overwrite`"):
        write_preset(Settings(), path)
    assert read_preset(path) == FULL
    write_preset(Settings(), path, overwrite=True)
    assert read_preset(path) == Settings()
    path.write_bytes(b"\xef\xbb\xbf" + FULL.to_json(2).replace("\n", "\r\n").encode())  # as an editor on Windows saves
    assert read_preset(path) == FULL
    for content in (b"\xff\xfe{}", b" " * 2_000_000):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="is no preset"):
            read_preset(path)
    with pytest.raises(FileNotFoundError):
        read_preset(tmp_path / "missing.json")
    assert sidecar_path("a/b.jpg") == Path("a/b.jpg.json") and sidecar_path("a/b.png") != sidecar_path("a/b.jpg")


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp", ".avif"])
def test_photos_tell_their_settings(suffix, tmp_path):
    path = tmp_path / f"out{suffix}"
    photo = load_photo(PHOTO)
    save_photo(photo, path, description=FULL.to_json())
    assert settings_of(load_photo(path)) == FULL
    save_photo(load_photo(path), path, overwrite=True)  # carried on, and replaced
    assert settings_of(load_photo(path)) == FULL
    save_photo(load_photo(path), path, overwrite=True, description=Settings(seed=1).to_json())
    assert settings_of(load_photo(path)) == Settings(seed=1)
    with pytest.raises(ValueError, match="does not say how it was retouched"):
        settings_of(photo)
    save_photo(photo, path, overwrite=True, description="brighter")
    with pytest.raises(ValueError, match=f"out{suffix}': no settings in JSON"):
        settings_of(load_photo(path))


def test_settings_survive_other_programs(tmp_path):
    path = tmp_path / "out.jpg"
    save_photo(load_photo(PHOTO), path, description=FULL.to_json())
    for text in ("<x:Retouch>{}</x:Retouch>", "<x:D x:Retouch='{}'/>", '<x:D x:Retouch="{}"/>'):
        said = FULL.to_json().replace("&", "&amp;").replace("<", "&lt;")
        quote = text[text.index("{") - 1]
        said = said.replace(quote, {'"': "&quot;", "'": "&apos;"}.get(quote, quote))
        content = text.replace("x:D", "rdf:Description").replace("x:", "diffretouch:").replace("{}", said)
        content = content if "Description" in content else f"<rdf:Description>{content}</rdf:Description>"
        packet = ('<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" '
                  f'xmlns:diffretouch="http://ns.diffretouch/1.0/">{content}</rdf:RDF>')  # fmt: skip
        assert Settings.from_json(xmp.description(packet.encode())) == FULL
    if not shutil.which("exiftool"):
        pytest.skip("exiftool is not installed")
    subprocess.run(["exiftool", "-q", "-overwrite_original", "-XMP-dc:Title=A title", str(path)], check=True)
    assert b"A title" in load_photo(path).xmp and settings_of(load_photo(path)) == FULL


def test_seeds_go_by_name():
    names = ["a.jpg", "b.jpg", "sub/a.jpg", "a.JPG", "\u65e5.jpg", "\udcff.jpg"]
    seeds = [seed_of(name) for name in names]
    assert len(set(seeds)) == len(names) and all(0 <= seed < 2**63 for seed in seeds)
    assert seed_of("a.jpg") == 8222705565811082710  # a seed never changes between versions
    assert seed_of("a.jpg", 1) != seed_of("a.jpg")
    assert seed_of("e\u0301.jpg") == seed_of("\u00e9.jpg")  # file systems disagree on which of these a name is


def test_revision_is_that_of_the_files(tmp_path):
    from diffretouch import DiffRetouchPipeline

    assert model_revision(tiny_pipeline()) is None
    for name in "ab":
        tiny_pipeline().save_pretrained(tmp_path / name)
    first, second = (model_revision(DiffRetouchPipeline.from_pretrained(tmp_path / name)) for name in "ab")
    assert first == second and len(first) == 16
    weights = next((tmp_path / "b").rglob("*.safetensors"))
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert model_revision(DiffRetouchPipeline.from_pretrained(tmp_path / "b")) != first
    commit = tmp_path / "snapshots" / ("0123456789" * 4)
    shutil.copytree(tmp_path / "a", commit)
    assert model_revision(DiffRetouchPipeline.from_pretrained(commit)) == "0123456789" * 4


def test_resolved_says_everything(tmp_path):
    pipe = tiny_pipeline()
    said = resolved(Settings(c={"contrast": 1}), pipe, "owner/model")
    assert said.c == {"colorfulness": 0, "contrast": 1, "temperature": 0, "brightness": 0}
    assert (said.strength, said.seed, said.steps, said.scheduler) == (1, 0, 2, "DDIMScheduler")
    assert said.model == "owner/model" and said.version == __version__
    with pytest.raises(ValueError, match=r"at least 2, got 1\.$"):
        resolved(Settings(any_style=True, steps=1), pipe, "mine")
    pipe.register_to_config(default_steps=1)
    with pytest.raises(ValueError, match=r"at least 2, got 1, the model's own\.$"):
        resolved(Settings(any_style=True), pipe, "mine")
    assert resolved(Settings(), pipe, tmp_path).model == tmp_path.name  # not where its maker's folders lie
    assert resolved(Settings(photo="another.jpg"), pipe, "small").photo is None

    class Fixed:  # any pipeline without sliders
        name_or_path, has_sliders = "", False

    for settings in (Settings(c={"contrast": 1}), Settings(regions=("a.png:contrast=1",)), Settings(steps=2)):
        with pytest.raises(ValueError, match="'csrnet' has no sliders"):
            resolved(settings, Fixed(), "csrnet")
    said = resolved(Settings(c={"contrast": 0}, seed=3, strength=0.5), Fixed(), "csrnet")
    assert (said.c, said.seed, said.steps, said.strength) == (None, None, None, 0.5)


def test_results_name_no_folders():
    tones = "luminosity=0-0.3:contrast=1"
    told = Settings(
        regions=("/home/me/sky.png:brightness=-0.4", "C:\\me\\a b.png:contrast=1", tones)
    ).without_folders()
    assert told.regions == ("sky.png:brightness=-0.4", "a b.png:contrast=1", tones)
    assert Settings().without_folders() == Settings()


def test_scheduler_by_name():
    pipe = tiny_pipeline()
    own = pipe.scheduler
    use_scheduler(pipe, None)
    use_scheduler(pipe, "DDIMScheduler")
    assert pipe.scheduler is own
    use_scheduler(pipe, "DPMSolverMultistepScheduler")
    assert type(pipe.scheduler).__name__ == "DPMSolverMultistepScheduler"
    assert pipe.scheduler.config.num_train_timesteps == own.config.num_train_timesteps
    assert np.isfinite(pipe(np.full((8, 8, 3), 0.5, np.float32), output_type="np").images).all()
    for name in ("os", "DiffusionPipeline", ""):
        with pytest.raises(ValueError, match="`scheduler` must be "):
            use_scheduler(pipe, name)
