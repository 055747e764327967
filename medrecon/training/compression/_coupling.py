"""Which channels of a network belong together, found by watching it run.

Removing a channel means removing it wherever it is made and wherever it is used: in the weights of every convolution
that makes it, adds to it, gates it or reads it. The network is run once on an example, and the channels of every tensor
carry labels along; where two meet in a sum or a product their labels become one. A recurrent state meets itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

#: One index along one axis of one parameter.
Place = tuple[str, int, int]
Labels = tuple[Place | None, ...]

_CONVOLUTIONS = {"conv1d": 1, "conv2d": 1, "conv3d": 1, "conv_transpose1d": 0, "conv_transpose2d": 0, "conv_transpose3d": 0}
_JOINS = {"cat", "concat", "concatenate"}
_SPLITS = {"chunk", "split", "tensor_split"}
_OVER_CHANNELS = {"sum", "mean"}
_CONSTANT = {"new_zeros", "zeros_like", "new_ones", "ones_like", "new_full", "full_like"}
_SAME_CHANNELS = {  # each output channel depends on the same channel of the inputs
    *("add", "radd", "iadd", "sub", "rsub", "isub", "mul", "rmul", "imul", "div", "truediv", "true_divide", "itruediv", "neg"),
    *("lerp", "where", "square", "to", "float", "bfloat16", "contiguous", "clone", "detach", "pad", "interpolate", "dropout"),
    *("relu", "leaky_relu", "prelu", "sigmoid", "tanh", "silu", "gelu", "elu", "softplus", "hardtanh"),
    *("max_pool2d", "max_pool3d", "avg_pool2d", "avg_pool3d", "instance_norm", "batch_norm"),
}


@dataclass(frozen=True, slots=True)
class Unit:
    """Places in the weights that stand for one channel."""

    places: tuple[Place, ...]

    @property
    def family(self) -> tuple[tuple[str, int, int], ...]:
        """Parameters and axes with how often the unit stands there: equal for channels of the same kind."""
        return tuple(sorted((*axis, count) for axis, count in Counter((name, axis) for name, axis, _ in self.places).items()))


def units(network: nn.Module, run: Callable[[], object]) -> list[Unit]:
    """Return the channels of a network that can be removed; what reaches its outputs or an unknown operation cannot.

    Parameters
    ----------
    network : nn.Module
    run : callable
        Runs the network on an example and returns its answer.
    """
    watch = _Watch(network)
    with torch.no_grad(), watch:
        answer = run()
    for leaf in tree_leaves(answer):
        watch.fix(watch.labels_of(leaf))
    return watch.units()


class _Watch(TorchFunctionMode):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self._names = {id(parameter): name for name, parameter in network.named_parameters()}
        self._labels: dict[int, Labels] = {}
        self._kept: list[Tensor] = []  # a label belongs to an identity, which must not be given away meanwhile
        self._parent: dict[Place, Place] = {}
        self._fixed: set[Place] = set()
        self._constant: set[int] = set()
        self._fresh = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401 (torch's signature)
        made = func(*args, **(kwargs or {}))
        if any(isinstance(leaf, Tensor) for leaf in tree_leaves(made)):
            self._follow(getattr(func, "__name__", "").strip("_"), args, kwargs or {}, made)
        return made

    def labels_of(self, thing: object) -> Labels | None:
        if id(thing) in self._constant and isinstance(thing, Tensor) and thing.ndim > 1:
            return self._fresh_labels(thing.shape[1])
        return self._labels.get(id(thing))

    def fix(self, labels: Labels | None) -> None:
        self._fixed.update(label for label in labels or () if label is not None)

    def units(self) -> list[Unit]:
        fixed = {self._root(place) for place in self._fixed}
        members: dict[Place, list[Place]] = {}
        for place in self._parent:
            members.setdefault(self._root(place), []).append(place)
        real = (sorted(p for p in places if p[0]) for root, places in members.items() if root not in fixed)
        return [Unit(tuple(places)) for places in real if places]

    def _follow(self, name: str, args: Any, kwargs: Any, made: Any) -> None:  # noqa: ANN401 (whatever torch calls)
        if name in _CONVOLUTIONS:
            self._convolve(_CONVOLUTIONS[name], args, kwargs, made)
        elif name in _JOINS and _dimension(args, kwargs, 0) == 1:
            self._set(made, tuple(label for tensor in args[0] for label in self._known(tensor)))
        elif name in _SPLITS and _dimension(args, kwargs, 0) == 1:
            self._split(args[0], made)
        elif name == "getitem":
            self._take(args[0], args[1], made)
        elif name in _CONSTANT or (name in _SAME_CHANNELS and id(args[0]) in self._constant and len(args) <= 2):
            self._kept.append(made)
            self._constant.add(id(made))
        elif name in _OVER_CHANNELS and _over_channels(args, kwargs):
            return  # a sum over channels is one whatever their number; a mean of fewer is still a mean
        elif name == "grid_sample":
            self._meet([args[0]], made)
        elif name in _SAME_CHANNELS:
            self._meet([*tree_leaves(args), *tree_leaves(kwargs)], made)
        else:
            self._give_up([*tree_leaves(args), *tree_leaves(kwargs)])

    def _convolve(self, given_axis: int, args: Any, kwargs: Any, made: Tensor) -> None:  # noqa: ANN401
        names = ("input", "weight", "bias")
        source, weight, bias = (args[k] if k < len(args) else kwargs.get(name) for k, name in enumerate(names))
        name = self._names.get(id(weight))
        labels = self._known(source)
        if name is None or weight.shape[given_axis] != len(labels):  # another's weights, or channels in groups
            self.fix(labels)
            return
        for index, label in enumerate(labels):
            self._join((name, given_axis, index), label)
        here: Labels = tuple((name, 1 - given_axis, index) for index in range(made.shape[1]))
        self._set(made, here)
        for index, label in enumerate(here if bias is not None else ()):
            self._join((self._names[id(bias)], 0, index), label)

    def _split(self, source: Tensor, made: Iterable[Tensor]) -> None:
        labels, start = self._known(source), 0
        for part in made:
            self._set(part, labels[start : start + part.shape[1]])
            start += part.shape[1]

    def _take(self, source: Tensor, index: Any, made: Tensor) -> None:  # noqa: ANN401 (anything that indexes)
        labels = self.labels_of(source)
        if labels is None:
            return
        inner = index if isinstance(index, tuple) else (index,)
        plain = all(part is Ellipsis or isinstance(part, slice) for part in inner)
        channel = slice(None) if inner[0] is Ellipsis or len(inner) < 2 else inner[1]
        if plain and isinstance(channel, slice):
            self._set(made, labels[channel])
        else:
            self.fix(labels)

    def _meet(self, leaves: list[Any], made: Tensor) -> None:
        """Let the channels of all inputs be one: those of tensors, and weights with one number a channel."""
        if not isinstance(made, Tensor) or made.ndim < 2:
            self._give_up(leaves)
            return
        width = made.shape[1]
        known = [labels for labels in map(self.labels_of, leaves) if labels is not None]
        own = [self._own(leaf, width) for leaf in leaves if id(leaf) in self._names]
        unknown = [t for t in leaves if isinstance(t, Tensor) and self.labels_of(t) is None and id(t) not in self._names]
        if any(len(labels) != width for labels in known):
            self._give_up(leaves)
            return
        for labels in known:
            if any(t.ndim >= 2 and t.shape[1] == width and width > 1 for t in unknown):
                self.fix(labels)  # it meets channels whose origin is not known
        merged = [self._merged(together) for together in zip(*known, *own, strict=True)]
        if known:
            self._set(made, tuple(merged))

    def _own(self, parameter: Tensor, width: int) -> Labels:
        name = self._names[id(parameter)]
        if tuple(parameter.shape) == (width,):
            return tuple((name, 0, index) for index in range(width))
        return (None,) * width

    def _merged(self, together: tuple[Place | None, ...]) -> Place | None:
        places = [place for place in together if place is not None]
        for other in places[1:]:
            self._join(places[0], other)
        if len(places) < len(together):
            self._fixed.update(places)
        return places[0] if places else None

    def _give_up(self, leaves: list[Any]) -> None:
        for leaf in leaves:
            self.fix(self.labels_of(leaf))

    def _join(self, place: Place, other: Place | None) -> None:
        if other is None:
            self._parent.setdefault(place, place)
            self._fixed.add(place)
            return
        self._parent[self._root(other)] = self._root(place)

    def _root(self, place: Place) -> Place:
        self._parent.setdefault(place, place)
        while self._parent[place] != place:
            place = self._parent[place]
        return place

    def _set(self, made: Tensor, labels: Labels) -> None:
        self._kept.append(made)
        self._labels[id(made)] = labels
        for label in labels:
            if label is not None:
                self._root(label)

    def _known(self, tensor: Tensor) -> Labels:
        return self.labels_of(tensor) or (None,) * tensor.shape[1]

    def _fresh_labels(self, count: int) -> Labels:
        """Label the channels of a constant anew at every use: they belong to whatever they meet there."""
        self._fresh += 1
        return tuple(("", self._fresh, index) for index in range(count))


def _over_channels(args: Any, kwargs: Mapping[str, Any]) -> bool:  # noqa: ANN401 (whatever torch calls)
    """Tell whether a call of sum or mean goes over the channels alone."""
    given = kwargs.get("dim", args[1] if len(args) > 1 else None)
    return given == 1 or given in ((1,), [1])


def _dimension(args: Any, kwargs: Mapping[str, Any], default: int) -> int:  # noqa: ANN401
    """Return the axis of a call of cat, chunk or split: the last positional number, or by name."""
    given = kwargs.get("dim", kwargs.get("axis"))
    position = {True: 1, False: 2}[isinstance(args[0], list | tuple)]
    if given is None:
        given = args[position] if len(args) > position else default
    return int(given)
