"""Two nodes for ComfyUI (V3): a photo, or a batch, is retouched by sliders; masks have sliders of their own.

Link this folder into ComfyUI/custom_nodes and `pip install diffretouch` beside ComfyUI. Models of your own lie in
ComfyUI/models/diffretouch, a folder each.
"""

from comfy_api.latest import ComfyExtension, io

from diffretouch import ATTRIBUTES

from .retouching import model_names, open_model, retouch_images

Regions = io.Custom("DIFFRETOUCH_REGIONS")


def sliders():
    look = {"default": 0.0, "min": -1.0, "max": 1.0, "step": 0.01, "display_mode": io.NumberDisplay.slider}
    return [io.Float.Input(name, tooltip=f"0 is the usual finish, + is more {name}", **look) for name in ATTRIBUTES]


class RetouchPhoto(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="DiffRetouchPhoto",
            display_name="Retouch Photo",
            category="image/retouch",
            description="Light, contrast, warmth and colour by a model; texture and sharpness stay the photo's own.",
            inputs=[
                io.Image.Input("image"),
                io.Combo.Input("model", options=model_names(), tooltip="csrnet and sa-adjustnet have no sliders"),
                *sliders(),
                io.Float.Input("strength", default=1.0, min=0.0, max=2.0, step=0.01, tooltip="1 is the retouch"),
                io.Int.Input("seed", default=0, min=0, max=2**53 - 1, control_after_generate=True,
                             tooltip="The same for all photos of a batch, so that a film does not flicker"),
                Regions.Input("regions", optional=True),
            ],
            outputs=[io.Image.Output(display_name="image")],
        )  # fmt: skip

    @classmethod
    def execute(cls, image, model, strength, seed, regions=None, **c):
        return io.NodeOutput(retouch_images(open_model(model), image, c, strength, seed, regions or ()))


class RetouchRegion(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="DiffRetouchRegion",
            display_name="Retouch Region",
            category="image/retouch",
            description="A mask with sliders of its own, laid over the regions below.",
            inputs=[io.Mask.Input("mask"), *sliders(), Regions.Input("below", optional=True)],
            outputs=[Regions.Output(display_name="regions")],
        )

    @classmethod
    def execute(cls, mask, below=None, **c):
        return io.NodeOutput([*(below or ()), (mask, c)])


class DiffRetouch(ComfyExtension):
    async def get_node_list(self):
        return [RetouchPhoto, RetouchRegion]


async def comfy_entrypoint():
    return DiffRetouch()
