"""The credits of the photos that the bundled small model was trained on."""

import csv
from pathlib import Path

import diffretouch

ROOT = Path(diffretouch.__file__).parent
# What may be used commercially, by attribution and share-alike at most
FREE = ("CC0", "public domain", "CC BY", "CC-BY", "per-file Wikimedia Commons licence (CC BY / BY-SA / PD)")


def test_every_photo_has_an_author_a_source_and_a_free_licence():
    with open(ROOT / "weights" / "CREDITS.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len({row["file"] for row in rows}) == len(rows) > 1000
    for row in rows:
        assert row["author"] and row["source"], row
        assert row["licence"].startswith(FREE) and "NC" not in row["licence"] and "ND" not in row["licence"], row
        assert row["use"] in ("training", "validation"), row


def test_validation_photos_are_credited_and_not_for_training():
    split = Path(__file__).parent.parent / "training" / "recipes" / "small_validation.txt"
    kept = split.read_text().split()
    with open(ROOT / "weights" / "CREDITS.csv", newline="", encoding="utf-8") as file:
        validation = {row["file"] for row in csv.DictReader(file) if row["use"] == "validation"}
    assert set(kept) == validation and len(validation) >= 40
