"""Memory traffic, products and collectives, read from the text of a compiled program (HLO)."""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"\s+(ROOT )?%?([\w.\-]+) = (.*?) ([a-z][\w\-]*)\(([^)]*)\)(.*)")
_ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,<=]*)\](?:\{([\d,]*)(?::([^}]*))?\})?")
_CALLED = re.compile(r"\b(?:calls|to_apply|body|condition)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"\b(?:true_computation|false_computation|branch_computations)=([^=]*)")
_COLLECTIVE = re.compile(
    r"(all-reduce|all-gather|all-to-all|reduce-scatter|ragged-all-to-all|collective-\w+)(-start)?$"
)
_HOST = re.compile(r"callback|is_host_transfer=true|infeed|outfeed", re.IGNORECASE)
_CALLERS = ("while", "conditional", "call", "async-start")
# These do not read or write arrays.
_FREE = (
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "opt-barrier"),
    *("after-all", "partition-id", "replica-id"),
)
_SLICES = ("slice", "dynamic-slice", "gather")
# These write a part of their first operand in place. The number is the new part's operand.
_UPDATES = {"dynamic-update-slice": 1, "scatter": -1}


class Array(NamedTuple):
    """An array: its dtype and shape, its bytes with padding, and whether main memory holds it."""

    dtype: str
    shape: tuple[int, ...]
    bytes: float
    in_memory: bool


class Instruction(NamedTuple):
    """An instruction of a computation. One that calls a fused computation is a kernel."""

    name: str
    opcode: str
    results: tuple[Array, ...]
    operands: tuple[str, ...]
    rest: str  # Its attributes.

    @property
    def is_product(self) -> bool:
        """Whether it is a matrix product or a convolution."""
        library = re.search(r'custom_call_target="[^"]*(gemm|matmul|\$conv)', self.rest)
        return self.opcode in ("dot", "convolution") or library is not None


class Place(NamedTuple):
    """A computation, and where the program runs it."""

    computation: str
    rounds: int = 1  # The number of rounds of all loops around it; 0 if it is not known.
    in_loop: bool = False
    in_branch: bool = False
    in_kernel: bool = False


class Program:
    """A compiled program: `computations` holds its instructions by computation and name."""

    def __init__(self, text: str):
        self.computations: dict[str, dict[str, Instruction]] = {}
        self._roots: dict[str, Instruction] = {}
        current = entry = ""
        for line in re.sub(r"/\*index=\d+\*/", "", text).splitlines():
            if head := _COMPUTATION.match(line):
                current = head[2]
                self.computations[current] = {}
                entry = current if head[1] else entry
            elif found := _INSTRUCTION.match(line):
                root, name, results, opcode, operands, rest = found.groups()
                names = tuple(part.split()[-1].lstrip("%") for part in operands.split(",") if part)
                arrays = tuple(map(_array, _ARRAY.finditer(results)))
                one = Instruction(name, opcode, arrays, names, rest)
                self.computations[current][name] = one
                if root:
                    self._roots[current] = one
        self._places = list(self._called(Place(entry)))

    @property
    def instructions(self) -> list[Instruction]:
        """All instructions, including those of fused computations."""
        return [one for some in self.computations.values() for one in some.values()]

    def passes(self, entries: float) -> tuple[int, int]:
        """Count the kernels that read or write a whole array of at least `entries` numbers.

        Returns:
          The number outside of loops and conditionals; the number in loops, each kernel once.
        """
        places = [
            place
            for place, accesses in self._kernels()
            if any(math.prod(a.shape) >= entries and part >= a.bytes for a, part in accesses)
        ]
        straight = sum(not place.in_loop and not place.in_branch for place in places)
        return straight, sum(place.in_loop for place in places)

    def bytes(self, cache: float = 0) -> float:
        """Count the bytes of arrays larger than a cache, read from and written to main memory.

        Conditionals, and loops whose number of rounds is not known, are left out.
        """
        return sum(
            place.rounds * part
            for place, accesses in self._kernels()
            for array, part in accesses
            if not place.in_branch and array.in_memory and array.bytes > cache
        )

    def flops(self) -> float:
        """Count operations of matrix products, one tap of convolutions; omit what `bytes` omits."""
        return sum(
            place.rounds * _flops(one, self.computations[place.computation])
            for place in self._places
            for one in self.computations[place.computation].values()
            if one.is_product and not place.in_branch
        )

    def collectives(self) -> dict[str, list[int]]:
        """Return how many numbers each collective between chips returns, in the whole text."""
        found = {}
        for one in self.instructions:
            if kind := _COLLECTIVE.match(one.opcode):
                # The results of an asynchronous collective begin with its operands.
                results = one.results[-len(one.operands) :]
                found.setdefault(kind[1], []).append(sum(math.prod(a.shape) for a in results))
        return found

    def host_calls(self) -> list[str]:
        """Return the instructions that call the host, or exchange data with it."""
        return [one.name for one in self.instructions if _HOST.search(one.opcode + one.rest)]

    def dtypes(self) -> set[str]:
        """Return the dtypes of all arrays."""
        return {array.dtype for one in self.instructions for array in one.results}

    def imprecise_products(self) -> list[str]:
        """Return the products of float32 with a precision below 'highest'."""
        return [
            one.name
            for one in self.instructions
            if one.is_product and one.results[0].dtype == "f32"
            if not re.search(r"precision\W+highest", one.rest, re.IGNORECASE)
        ]

    def _called(self, place: Place) -> Iterator[Place]:
        """Yield the places of a computation and of all computations that it calls."""
        yield place
        for one in self.computations[place.computation].values():
            changes = {"in_kernel": place.in_kernel or one.opcode not in _CALLERS}
            if one.opcode == "while":
                changes |= {"rounds": place.rounds * self._rounds(one), "in_loop": True}
            for name in re.findall(r"%([\w.\-]+)", " ".join(_BRANCHES.findall(one.rest))):
                yield from self._called(place._replace(computation=name, in_branch=True))
            for name in _CALLED.findall(one.rest):
                yield from self._called(place._replace(computation=name, **changes))

    def _rounds(self, loop: Instruction) -> int:
        """Return the number of rounds of a loop if it counts up to a constant, else 0."""
        if known := re.search(r'known_trip_count"?:\{"n":"(\d+)"', loop.rest):
            return int(known[1])
        name = re.findall(r"condition=%?([\w.\-]+)", loop.rest)[0]
        last = self._roots[name]
        limit = self.computations[name].get(last.operands[-1])
        counts = limit is not None and limit.opcode == "constant" and "direction=LT" in last.rest
        return int(limit.operands[0]) if counts else 0

    def _kernels(self) -> Iterator[tuple[Place, list[tuple[Array, float]]]]:
        """Yield the place of each kernel, and the bytes that it reads or writes, by array."""
        for place in self._places:
            own = self.computations[place.computation]
            for one in own.values() if not place.in_kernel else ():
                if one.opcode in (*_FREE, *_CALLERS) or one.opcode.endswith("-done"):
                    continue
                accesses = list(zip(_new(own, one), self._written(own, one), strict=False))
                for name in dict.fromkeys(one.operands):
                    for array in own[name].results[:1] if name in own else ():
                        accesses.append((array, min(array.bytes, self._read(own, name, [one]))))
                yield place, accesses

    def _written(self, own: dict[str, Instruction], one: Instruction) -> list[float]:
        """Return the bytes that an instruction writes in each of its results."""
        if one.opcode == "fusion":
            name = _CALLED.findall(one.rest)[0]
            return self._written(self.computations[name], self._roots[name])
        if one.opcode == "tuple":
            return [sum(self._written(own, own[name])[:1]) for name in one.operands]
        if one.opcode == "bitcast":
            return self._written(own, own[one.operands[0]])
        if one.opcode in _UPDATES:
            return [own[one.operands[_UPDATES[one.opcode]]].results[0].bytes]
        return [array.bytes for array in _new(own, one)]

    def _read(self, own: dict[str, Instruction], name: str, users: list[Instruction]) -> float:
        """Return the bytes that the instructions `users` read from an array."""
        total = 0.0
        for one in users:
            opcode, first = one.opcode.removesuffix("-start"), one.operands[0] == name
            if opcode == "fusion":
                inside = self.computations[_CALLED.findall(one.rest)[0]]
                for inner in [i for i in inside.values() if i.opcode == "parameter"]:
                    if one.operands[int(inner.operands[0])] == name:
                        total += self._read(inside, inner.name, _users(inside, inner.name))
            elif opcode == "bitcast" and _users(own, one.name):
                total += self._read(own, one.name, _users(own, one.name))
            elif opcode in _SLICES and first:
                total += sum(array.bytes for array in _new(own, one))
            elif not (opcode in _UPDATES and first):
                total += own[name].results[0].bytes
        return total


def _users(own: dict[str, Instruction], name: str) -> list[Instruction]:
    return [one for one in own.values() if name in one.operands]


def _new(own: dict[str, Instruction], one: Instruction) -> list[Array]:
    """Return the results, without the operands that an asynchronous instruction returns too."""
    results = list(one.results)
    for name in one.operands if one.opcode.endswith("-start") else ():
        for operand in own[name].results:
            results.remove(operand)
    return results


def _array(found: re.Match) -> Array:
    dtype, sizes, order, memory = found.groups(default="")
    shape = tuple(int(size) for size in re.findall(r"\d+", sizes))
    padded = list(shape)
    # T(8,128): in the order of memory, the last axes are padded to multiples of 8 and of 128.
    tile = re.findall(r"\d+", (re.findall(r"T(\([\d,]+\))", memory) or [""])[0])
    for axis, size in zip(re.findall(r"\d+", order), reversed(tile), strict=False):
        padded[int(axis)] = -(-padded[int(axis)] // int(size)) * int(size)
    bits = re.findall(r"\d+", dtype)
    itemsize = int(bits[0]) / 8 if bits else float(dtype == "pred")
    # S(0) is main memory; other spaces are on the chip.
    return Array(dtype, shape, math.prod(padded) * itemsize, not re.search(r"S\([1-9]", memory))


def _flops(product: Instruction, own: dict[str, Instruction]) -> float:
    left, right = (own[name].results[0].shape for name in product.operands[:2])
    out = 2.0 * math.prod(product.results[0].shape)
    if summed := re.search(r'lhs_contracting_dim\w*"?[=:][{\[]([^}\]]*)', product.rest):
        return out * math.prod(left[int(axis)] for axis in re.findall(r"\d+", summed[1]))
    kernel = re.findall(r"dim_labels=\w+_(\w+)->", product.rest)
    return out * right[kernel[0].index("i")] if kernel else 0.0
