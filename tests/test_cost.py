import sys
from types import SimpleNamespace

import torch

from diffretouch import CSRNetPipeline
from diffretouch import evaluation as ev
from diffretouch.models.csrnet import CSRNet

from . import tiny


def test_cost(folders):
    """Counted on a network of known cost; a method that takes memory is seen to take it."""
    network = torch.nn.Conv2d(3, 4, 3, padding=1)

    def held(source, target, pair):
        with torch.no_grad():
            network(source)
        return source + 0 * torch.ones(48 * 2**20).sum(), {}  # 192 MiB

    methods = [ev.untouched(), ev.Method("held", "", held, parameters=112)]
    report = ev.evaluate_methods(methods, ev.pair_names(*folders), cost=True)
    cost = report["cost"]["held"]
    assert (
        cost["multiply_adds"] == 512 * 512 * 3 * 4 * 9
        and cost["size"] == [512, 410]
        and cost["parameters"] == 112
        and cost["seconds"] > 0
    )
    if sys.platform.startswith("linux"):
        assert 180 * 2**20 < cost["memory"] < 400 * 2**20 and report["cost"]["input"]["memory"] < 50 * 2**20
    assert report["cost"]["input"]["multiply_adds"] == 0
    table = ev.report_table(report)
    assert "cost at 512 px" in table and "on a square of 512 px of noise" in table and "a.png at 512x410 px" in table
    assert "| held | 112 | 0.028 |" in ev.report_markdown(report)
    pipe = tiny.one_step_pipeline()
    own = sum(p.numel() for part in (pipe.unet, pipe.grid_head) for p in part.parameters())
    assert ev.count_parameters(pipe) == own
    shared = SimpleNamespace(components={"a": network, "b": torch.nn.Sequential(network), "vae": network, "c": 3})
    assert ev.count_parameters(shared) == 112


def test_memory_is_that_of_the_device(monkeypatch):
    """Of the processor's, too, where there is a GPU that the methods do not run on."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    big = ev.Method("big", "", lambda source, target, pair: (source + 0 * torch.ones(48 * 2**20).sum(), {}))
    photo = torch.full((1, 3, 20, 30), 0.5)
    memory = ev.measure_costs([big], photo, photo, None, repeats=1)["big"]["memory"]
    assert memory > 180 * 2**20 if sys.platform.startswith("linux") else memory is None


def test_multiply_adds_do_not_depend_on_the_photo():
    """A photo of 8 bits is retouched by its colours: of one colour next to nothing is left to count."""
    torch.manual_seed(0)
    network = CSRNet()
    method = ev.pipeline_method("csrnet", CSRNetPipeline(network), "")
    grey, colourful = torch.full((1, 3, 20, 30), 0.5), torch.rand(1, 3, 30, 20)
    counts = {ev.measure_costs([method], x, x, None, repeats=1)["csrnet"]["multiply_adds"] for x in (grey, colourful)}
    assert len(counts) == 1
    assert counts.pop() >= 512 * 512 * (3 * 64 + 64 * 64 + 64 * 3)  # the three matrices, for each pixel
