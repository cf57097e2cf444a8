"""A user's program, for the type checker: .ci/run checks it against the installed package, of which nothing is Any."""

from typing import assert_type

import numpy as np
import PIL.Image
import torch

from diffretouch import (
    CSRNetPipeline,
    DiffRetouchPipeline,
    Lut3D,
    SAAdjustNetPipeline,
    Settings,
    bake_lut,
    load_photo,
    luminosity_mask,
)

photo = PIL.Image.open("photo.jpg")
pixels = assert_type(load_photo("photo.jpg").pixels, np.ndarray)

pipe = assert_type(DiffRetouchPipeline.from_pretrained("small"), DiffRetouchPipeline)
pipe(photo, c={"brightness": 0.5}, num_inference_steps=1).images[0].save("out.png")
shadows = assert_type(luminosity_mask(photo, 0, 0.3), np.ndarray)
pipe.retouch(photo, [0.3, 0, -0.2, 0.5], regions=[(shadows, {"contrast": 0.4})]).save("out.png")
grid = assert_type(pipe.predict_grid(photo), torch.Tensor)
pipe.apply_grid(pixels, grid, strength=0.5)
assert_type(pipe.retouch(photo), PIL.Image.Image)
assert_type(pipe.retouch(torch.zeros(3, 4, 5)), torch.Tensor)
assert_type(pipe.attributes_of(photo, reference=pixels), torch.Tensor)
assert_type(SAAdjustNetPipeline.from_pretrained("small").retouch(photo), PIL.Image.Image)
pipe.retouch("photo.jpg")  # type: ignore[type-var]
pipe(photo, c="warm")  # type: ignore[arg-type]
pipe(photo, strenght=0.5)  # type: ignore[call-arg]

fast = CSRNetPipeline.from_pretrained("small")
look = assert_type(bake_lut(fast, photo, size=9), Lut3D)
look.apply(fast.retouch(pixels))
assert_type(Settings(c={"contrast": 0.1}, strength=0.8).to_json(), str)
