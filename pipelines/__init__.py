"""Pipelines: photos in, retouched photos out; one per file.

All have `from_pretrained`, a call that returns an output of `images`, and `retouch(image, ..., out=None)`, which
returns one photo in the form it came. What else one can do, three attributes of its class say:

* `has_sliders`: c steers it. There are `predict_grid`, `apply_grid`, `sliders`, `preview` and `attributes_of`.
* `has_regions`: its calls take `regions`, other c in parts of the photo.
* `has_colour_function`: there is `colour_function`, what it does to a photo's colours; `is_local` tells whether that
  is all.
"""
