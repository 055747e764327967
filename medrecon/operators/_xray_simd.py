"""Two loops that a compiler does not vectorise by itself, as numba intrinsics: interpolating a line, and its transpose.

Both look a table up at slowly growing positions. That many lanes fall into one short window of the table, which sits
in registers: with AVX-512 or AVX2 one permutation serves all lanes. Elsewhere, and where positions grow too fast for
the window, the lanes are loaded one by one, which is still faster than the scalar loop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.extending import intrinsic

_FLOAT, _DOUBLE, _INT, _INDEX = ir.FloatType(), ir.DoubleType(), ir.IntType(32), ir.IntType(64)
_FAST = ("contract", "reassoc", "nsz")


def _instruction_set() -> str:
    """Return the widest permutation that this processor has: ``avx512``, ``avx2`` or nothing."""
    features = cpu_target.target_context.codegen().magic_tuple()[2].split(",")  # numba's, which the environment may restrict
    if "+avx512f" in features:
        return "avx512"
    return "avx2" if "+avx2" in features else ""


_PERMUTATION = _instruction_set()

#: Numbers that are worked on at once.
LANES = 16 if _PERMUTATION == "avx512" else 8
#: How far the first and last index of a group of lanes may lie apart for the window.
WINDOW = 2 * LANES if _PERMUTATION else 0
#: Readable floats that a table needs behind its last index.
TABLE_MARGIN = 4 * LANES


class _Group:
    """One group of lanes while code is generated: vectors of floats and of indices."""

    def __init__(self, builder: ir.IRBuilder) -> None:
        self.builder = builder
        self.floats, self.ints = ir.VectorType(_FLOAT, LANES), ir.VectorType(_INT, LANES)

    def splat(self, value: Any) -> Any:  # noqa: ANN401 (llvmlite's values are untyped)
        """Put one scalar into every lane."""
        undefined = ir.Constant(ir.VectorType(value.type, LANES), ir.Undefined)
        first = self.builder.insert_element(undefined, value, _INT(0))
        return self.builder.shuffle_vector(first, undefined, ir.Constant(self.ints, [0] * LANES))

    def counting(self) -> Any:  # noqa: ANN401
        """Return 0, 1, 2, ... as floats."""
        return ir.Constant(self.floats, [float(lane) for lane in range(LANES)])

    def split(self, position: Any) -> tuple[Any, Any]:  # noqa: ANN401
        """Split a positive double into a 64-bit integer and the rest as a float."""
        whole = self.builder.fptosi(position, _INDEX)
        return whole, self.builder.fptrunc(self.builder.fsub(position, self.builder.sitofp(whole, _DOUBLE)), _FLOAT)

    def multiply_add(self, a: Any, b: Any, c: Any) -> Any:  # noqa: ANN401
        """Return a * b + c."""
        return self.builder.fadd(self.builder.fmul(a, b, flags=_FAST), c, flags=_FAST)

    def load(self, pointer: Any) -> Any:  # noqa: ANN401
        """Read neighbouring floats."""
        value = self.builder.load(self.builder.bitcast(pointer, self.floats.as_pointer()))
        value.align = 4
        return value

    def store(self, value: Any, pointer: Any) -> None:  # noqa: ANN401
        """Write neighbouring floats."""
        self.builder.store(value, self.builder.bitcast(pointer, self.floats.as_pointer())).align = 4

    def first(self, indices: Any) -> Any:  # noqa: ANN401
        """Return what the first lane holds."""
        return self.builder.extract_element(indices, _INT(0))

    def lookup_singly(self, table: Any, indices: Any) -> Any:  # noqa: ANN401
        """Return table[indices], lane by lane."""
        found = ir.Constant(self.floats, ir.Undefined)
        for lane in range(LANES):
            index = self.builder.sext(self.builder.extract_element(indices, _INT(lane)), _INDEX)
            found = self.builder.insert_element(found, self.builder.load(self.builder.gep(table, [index])), _INT(lane))
        return found

    def lookup_in_window(self, table: Any, indices: Any) -> Any:  # noqa: ANN401
        """Return table[indices], where all indices lie within WINDOW of the first lane's, which is the smallest."""
        b, base = self.builder, self.first(indices)
        low = b.gep(table, [b.sext(base, _INDEX)])
        halves = self.load(low), self.load(b.gep(low, [_INDEX(LANES)]))
        relative = b.sub(indices, self.splat(base))
        if _PERMUTATION == "avx512":
            signature = ir.FunctionType(self.floats, [self.floats, self.ints, self.floats])
            permute = cgutils.get_or_insert_function(b.module, signature, "llvm.x86.avx512.vpermi2var.ps.512")
            return b.call(permute, [halves[0], relative, halves[1]])
        signature = ir.FunctionType(self.floats, [self.floats, self.ints])
        permute = cgutils.get_or_insert_function(b.module, signature, "llvm.x86.avx2.permps")  # uses the lowest 3 bits
        in_high = b.icmp_signed(">", relative, ir.Constant(self.ints, [LANES - 1] * LANES))
        return b.select(in_high, b.call(permute, [halves[1], relative]), b.call(permute, [halves[0], relative]))


Lookup = Callable[[_Group, Any, Any], Any]


def _lerp_code(lookup: Lookup) -> Callable[..., Any]:
    """Generate ``into[k] += lerp(table, offset + slope * k)`` for whole groups of k; returns where it stopped.

    Each group's first position is found in float64 and only what the lanes add to it in float32, so that the weights
    are as exact far from the table's start as near it.
    """

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:  # noqa: ANN401
        into, start, stop, table, offset, slope = _arguments(context, builder, signature, args)
        group = _Group(builder)
        ramp = builder.fmul(group.splat(builder.fptrunc(slope, _FLOAT)), group.counting(), flags=_FAST)
        one = ir.Constant(group.ints, [1] * LANES)

        def body(k: Any) -> None:  # noqa: ANN401
            whole, rest = group.split(builder.fadd(offset, builder.fmul(slope, builder.sitofp(k, _DOUBLE))))
            position = builder.fadd(ramp, group.splat(rest), flags=_FAST)
            steps = builder.fptosi(position, group.ints)
            share = builder.fsub(position, builder.sitofp(steps, group.floats), flags=_FAST)
            here = builder.gep(table, [whole])
            low, high = lookup(group, here, steps), lookup(group, here, builder.add(steps, one))
            value = group.multiply_add(share, builder.fsub(high, low, flags=_FAST), low)
            target = builder.gep(into, [k])
            group.store(builder.fadd(group.load(target), value, flags=_FAST), target)

        return _for_groups(builder, start, stop, body)

    return generate


def _hat_code(lookup: Lookup, taps: int) -> Callable[..., Any]:
    """Generate ``into[k] = sum_i table[i] * max(0, 1 - |offset + slope * i - k|)``, the transpose of the above.

    At most `taps` indices i lie close enough to k to count.
    """

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:  # noqa: ANN401
        into, start, stop, table, offset, slope = _arguments(context, builder, signature, args)
        group = _Group(builder)
        lanes, slopes = group.counting(), group.splat(builder.fptrunc(slope, _FLOAT))
        inverse = builder.fdiv(_DOUBLE(1.0), slope)
        ramp = builder.fmul(group.splat(builder.fptrunc(inverse, _FLOAT)), lanes, flags=_FAST)
        one, zero = ir.Constant(group.floats, [1.0] * LANES), ir.Constant(group.floats, [0.0] * LANES)
        magnitude = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(group.floats, [group.floats]), f"llvm.fabs.v{LANES}f32"
        )

        def body(k: Any) -> None:  # noqa: ANN401
            voxel = builder.sitofp(k, _DOUBLE)
            below = builder.fsub(builder.fsub(voxel, offset), _DOUBLE(1.0))  # what the nearest table entry must exceed
            whole, rest = group.split(builder.fadd(builder.fmul(below, inverse), _DOUBLE(1.0)))
            away = builder.fsub(builder.fadd(offset, builder.fmul(slope, builder.sitofp(whole, _DOUBLE))), voxel)
            first = builder.fptosi(builder.fadd(ramp, group.splat(rest), flags=_FAST), group.ints)
            start_away = builder.fsub(group.splat(builder.fptrunc(away, _FLOAT)), lanes, flags=_FAST)
            here, total = builder.gep(table, [whole]), zero
            for tap in range(taps):
                steps = builder.add(first, ir.Constant(group.ints, [tap] * LANES))
                distance = group.multiply_add(slopes, builder.sitofp(steps, group.floats), start_away)
                weight = builder.fsub(one, builder.call(magnitude, [distance]), flags=_FAST)
                weight = builder.select(builder.fcmp_ordered(">", weight, zero), weight, zero)
                total = group.multiply_add(weight, lookup(group, here, steps), total)
            group.store(total, builder.gep(into, [k]))

        return _for_groups(builder, start, stop, body)

    return generate


def _arguments(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> list[Any]:  # noqa: ANN401
    """Replace arrays by pointers to their data."""
    pairs = zip(signature.args, args, strict=True)
    return [context.make_array(t)(context, builder, v).data if isinstance(t, types.Array) else v for t, v in pairs]


def _for_groups(builder: ir.IRBuilder, start: Any, stop: Any, body: Callable[[Any], None]) -> Any:  # noqa: ANN401
    """Run `body` for every whole group between start and stop; return the first index that was not done."""
    groups = builder.sdiv(builder.sub(stop, start), _INDEX(LANES))
    with cgutils.for_range(builder, groups) as loop:
        body(builder.add(start, builder.mul(loop.index, _INDEX(LANES))))
    return builder.add(start, builder.mul(groups, _INDEX(LANES)))


def _declare(code: Callable[..., Any]) -> Any:  # noqa: ANN401
    """Make the numba intrinsic ``(into, start, stop, table, offset, slope) -> first index not done``."""

    @intrinsic  # type: ignore[untyped-decorator]  # numba is untyped
    def loop(_typing: Any, into: Any, start: Any, stop: Any, table: Any, offset: Any, slope: Any) -> Any:  # noqa: ANN401
        del start, stop, offset, slope  # converted to the types of the signature
        return types.intp(into, types.intp, types.intp, table, types.float64, types.float64), code

    return loop


lerp_singly = _declare(_lerp_code(_Group.lookup_singly))
if _PERMUTATION:
    lerp_in_window = _declare(_lerp_code(_Group.lookup_in_window))
    hats_of_2, hats_of_3, hats_of_4 = (_declare(_hat_code(_Group.lookup_in_window, taps)) for taps in (2, 3, 4))
else:  # never called, as WINDOW is 0; the names must exist for the kernels to compile
    lerp_in_window = hats_of_2 = hats_of_3 = hats_of_4 = lerp_singly
