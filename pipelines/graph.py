"""ONNX graphs as they are kept: without shape arithmetic, and with weights that lie in other files."""

import copy
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy
import torch

if TYPE_CHECKING:
    import onnx

_LARGEST = 64  # numbers that are written down in the place of what computes them


def fold_shapes(model: "onnx.ModelProto") -> None:
    """Write down what a graph computes of its inputs' shapes alone, in place: half of what torch traces is that.

    What is the same for batches of two and of three is a constant; a size that follows the batch becomes one that a
    `Reshape` finds itself. Graphs with other free sizes than the batch's are left alone.
    """
    from onnx import helper, numpy_helper
    from onnxruntime import InferenceSession

    graph = model.graph
    free = {d.dim_param for value in graph.input for d in value.type.tensor_type.shape.dim if d.dim_param}
    if len(free) != 1:
        return
    known, of_shapes = {tensor.name for tensor in graph.initializer}, set()
    for node in graph.node:
        given = set(filter(None, node.input))
        if node.op_type == "Shape" or (given & of_shapes and given <= known | of_shapes):
            of_shapes.update(node.output)
    users: dict[str, set[str]] = {}
    computing = [node for node in graph.node if not of_shapes.issuperset(node.output)]
    for node in computing:
        for name in of_shapes.intersection(node.input):
            users.setdefault(name, set()).add(node.op_type)
    if not users:
        return

    probe = copy.deepcopy(model)
    del probe.graph.output[:]
    probe.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in users)
    session = InferenceSession(probe.SerializeToString(), providers=["CPUExecutionProvider"])
    found = []
    for batch in (2, 3):
        shapes = {v.name: [d if isinstance(d, int) else batch for d in v.shape] for v in session.get_inputs()}
        found.append(session.run(None, {name: numpy.zeros(shape, "float32") for name, shape in shapes.items()}))
    for (name, kinds), two, three in zip(users.items(), *found, strict=True):
        if two.shape != three.shape or two.size > _LARGEST:
            continue
        follows = two != three
        if follows.any():
            first = two.ndim == 1 and follows[0] and follows.sum() == 1  # 0: as many as before
            if kinds != {"Reshape"} or follows.sum() > 1 or ((two < 1).any() and not first):
                continue
            two = numpy.where(follows, 0 if (two < 1).any() else -1, two)
        graph.initializer.append(numpy_helper.from_array(numpy.asarray(two), f"{name}.folded"))
        for node in computing:
            for k, given in enumerate(node.input):
                if given == name:
                    node.input[k] = f"{name}.folded"
    _prune(graph)


def _prune(graph):
    """Drop nodes and weights that nothing needs."""
    needed = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    weights = [tensor for tensor in graph.initializer if tensor.name in needed]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(reversed(kept))
    graph.initializer.extend(weights)


def tensors_by_value(folder: Path) -> dict[bytes, tuple[str, numpy.ndarray, bool]]:
    """The weights of a model's directory: digest of the numbers -> ("unet/file.safetensors:name", array, turned)."""
    from safetensors.torch import load_file

    found = {}
    for path in sorted(folder.rglob("*.safetensors")):
        for name, tensor in load_file(path).items():
            if tensor.dtype not in (torch.float16, torch.float32):
                continue  # numpy has no other
            stored = tensor.numpy()
            name = f"{path.relative_to(folder).as_posix()}:{name}"
            found.setdefault(_value(stored), (name, stored, False))
            if stored.ndim == 2:
                found.setdefault(_value(stored.T), (name, stored, True))
    return found


def _value(array):
    return hashlib.sha256(array.astype("float32").tobytes()).digest()


def name_weights(path: Path, tensors: dict[bytes, tuple[Any, ...]]) -> list[str]:
    """Have a graph name its weights, not hold them -> their names."""
    from onnx import TensorProto, helper, load, numpy_helper, save

    model, nodes, named, kept = load(path), [], {}, []
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        name, stored, turned = tensors.get(_value(values), (None, None, False))
        if name is None or tensor.data_type != TensorProto.FLOAT:
            kept.append(tensor)
            continue
        own = named[name] = TensorProto(name=name, dims=stored.shape, data_location=TensorProto.EXTERNAL)
        own.data_type = TensorProto.FLOAT16 if stored.dtype == "float16" else TensorProto.FLOAT
        own.external_data.add(key="location", value="weights")
        steps: list[tuple[str, dict[str, Any], list[str]]] = [("Cast", {"to": TensorProto.FLOAT}, [])]
        if turned:
            steps.append(("Transpose", {"perm": [1, 0]}, []))
        if values.ndim != stored.ndim:
            kept.append(numpy_helper.from_array(numpy.array(values.shape, "int64"), f"{tensor.name}.shape"))
            steps.append(("Reshape", {}, [kept[-1].name]))
        for k, (kind, attributes, more) in enumerate(steps):
            made = tensor.name if k == len(steps) - 1 else f"{tensor.name}.{kind}"
            nodes.append(helper.make_node(kind, [name, *more], [made], **attributes))
            name = made
    graph = model.graph
    nodes += graph.node
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend([*kept, *named.values()])
    graph.node.extend(nodes)
    save(model, path)
    return list(named)
