"""Plant mistakes in a gradient rule, one at a time: missing terms, transposes and sums, wrong signs.

``mutants_of(function)`` yields ``(description, mutant)`` for every mistake that can be planted in a rule,
in a kernel's backward, or in the helper functions of its module that it calls. A mutant is called like the
function. Nothing that lives is changed: each mutant has the helpers in a namespace of its own.
"""

from __future__ import annotations

import ast
import copy
import inspect
from collections import Counter
from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Any

OPERATORS = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.Gt: ast.Lt,
    ast.Lt: ast.Gt,
    ast.GtE: ast.LtE,
    ast.LtE: ast.GtE,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.And: ast.Or,
    ast.Or: ast.And,
}
OPPOSITES = [
    ("add", "subtract"),
    ("multiply", "divide"),
    ("sin", "cos"),
    ("tril", "triu"),
    ("maximum", "minimum"),
    ("max", "min"),
    ("zeros", "ones"),
    ("zeros_like", "ones_like"),
]
NAMES = dict(OPPOSITES) | {b: a for a, b in OPPOSITES}
# leaving these calls out leaves the numbers as they are
CONVERSIONS = {"raw", "tuple", "list", "int", "range", "zip", "enumerate", "reversed", "isinstance"}
MODULES = {"xp", "np", "numpy", "math"}


def mutants_of(function: Callable) -> Iterator[tuple[str, Callable]]:
    """Yield every mutant of a function with a description that stays the same while the code does."""
    helpers = _helpers(function)
    for part in [function, *helpers.values()]:
        tree = _source(part)
        seen: Counter[str] = Counter()
        for number, node in enumerate(_mutable(tree)):
            for new in _mistakes(node, tree):
                text = f"{part.__name__}: {ast.unparse(node)}  =>  {ast.unparse(new)}"
                seen[text] += 1
                if seen[text] > 1:
                    text += f"  (place {seen[text]})"
                changed = copy.deepcopy(tree)
                _replace(changed, next(n for i, n in enumerate(_mutable(changed)) if i == number), new)
                yield text, _rebuild(function, helpers, part, changed)


def _helpers(function: Callable) -> dict[str, FunctionType]:
    """Functions of the same module that a function calls, directly or through each other."""
    found: dict[str, FunctionType] = {}
    waiting = [function]
    while waiting:
        names = {node.id for node in ast.walk(_source(waiting.pop())) if isinstance(node, ast.Name)}
        for name in sorted(names - found.keys()):
            value = function.__globals__.get(name)
            if isinstance(value, FunctionType) and value.__module__ == function.__module__:
                found[name] = value
                waiting.append(value)
    return found


def _source(function: Callable) -> Any:
    """Find the lambda or def of a function in the source of its module."""
    assert function.__closure__ is None, f"{function.__name__} uses variables of the function around it"
    module = ast.parse(inspect.getsource(inspect.getmodule(function)))
    nodes = [n for n in ast.walk(module) if isinstance(n, ast.Lambda | ast.FunctionDef)]
    for node in nodes:
        node.first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
    here = [n for n in nodes if n.first == function.__code__.co_firstlineno]
    assert len(here) == 1, f"{len(here)} functions start on line {function.__code__.co_firstlineno}"
    return here[0]


def _mutable(tree: ast.AST) -> Iterator[ast.AST]:
    """Walk through the code that computes: not through defaults, annotations, and checks that only raise."""
    for field, value in ast.iter_fields(tree):
        if field in ("args", "decorator_list", "returns", "annotation") and not isinstance(tree, ast.Call):
            continue
        for child in value if isinstance(value, list) else [value]:
            raises = isinstance(child, ast.If) and all(isinstance(s, ast.Raise) for s in child.body)
            checks = isinstance(child, ast.keyword) and child.arg == "strict"
            if isinstance(child, ast.AST) and not raises and not checks:
                yield child
                yield from _mutable(child)


def _mistakes(node: Any, tree: Any) -> Iterator[ast.AST]:
    """Yield what could stand in the place of a node by mistake."""
    if isinstance(node, ast.BinOp):
        if type(node.op) in OPERATORS:
            yield ast.BinOp(node.left, OPERATORS[type(node.op)](), node.right)
        yield node.left
        yield node.right
    elif isinstance(node, ast.BoolOp):
        yield ast.BoolOp(OPERATORS[type(node.op)](), node.values)
    elif isinstance(node, ast.Compare) and type(node.ops[0]) in OPERATORS:
        yield ast.Compare(node.left, [OPERATORS[type(node.ops[0])](), *node.ops[1:]], node.comparators)
    elif isinstance(node, ast.UnaryOp):
        yield node.operand
    elif isinstance(node, ast.IfExp):
        yield node.body
        yield node.orelse
    elif isinstance(node, ast.If):
        yield ast.If(ast.UnaryOp(ast.Not(), node.test), node.body, node.orelse)
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield ast.Constant(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        yield ast.Constant(node.value + 1)
    elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
        yield node.value
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
        inputs = [a.arg for a in tree.args.args[2:]]  # after the upstream gradient and the output
        if node.id in inputs and len(inputs) == 2 and not tree.args.defaults:
            yield ast.Name(inputs[1 - inputs.index(node.id)], ast.Load())
        if node.id in NAMES:
            yield ast.Name(NAMES[node.id], ast.Load())
    elif isinstance(node, ast.Attribute):
        if node.attr in ("mT", "T"):
            yield node.value
        if node.attr in NAMES:
            yield ast.Attribute(node.value, NAMES[node.attr], node.ctx)
    elif isinstance(node, ast.Call):
        yield from _without_call(node)
    elif isinstance(node, ast.AugAssign):
        yield ast.Assign([node.target], node.value, lineno=node.lineno)
        yield ast.Pass()
        if type(node.op) in OPERATORS:
            yield ast.AugAssign(node.target, OPERATORS[type(node.op)](), node.value)
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield ast.Pass()
        if ast.unparse(node.value.func).endswith("add.at"):  # an index given twice then counts once
            array, index, updates = node.value.args
            place = ast.Subscript(array, index, ast.Store())
            yield ast.Assign([place], updates, lineno=node.lineno)
            yield ast.AugAssign(place, ast.Add(), updates)


def _without_call(node: ast.Call) -> Iterator[ast.AST]:
    method = isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value) not in MODULES
    if method:
        yield node.func.value
    elif (
        node.args and not isinstance(node.args[0], ast.Starred) and ast.unparse(node.func) not in CONVERSIONS
    ):
        yield node.args[0]


def _replace(tree: ast.AST, old: ast.AST, new: ast.AST) -> None:
    for parent in ast.walk(tree):
        for field, value in ast.iter_fields(parent):
            if value is old:
                setattr(parent, field, new)
            elif isinstance(value, list):
                value[:] = [new if item is old else item for item in value]


def _rebuild(function: Callable, helpers: dict[str, FunctionType], part: Callable, changed: Any) -> Callable:
    """Return the function in a namespace of its own, in which ``part`` has the changed source."""
    namespace = dict(function.__globals__)
    for name, helper in helpers.items():
        namespace[name] = _moved(helper, namespace)
    if isinstance(changed, ast.Lambda):
        code = compile(ast.fix_missing_locations(ast.Expression(changed)), "<mutant>", "eval")
        mutant = eval(code, namespace)
    else:
        changed.decorator_list = []
        module = ast.fix_missing_locations(ast.Module([changed], []))
        exec(compile(module, "<mutant>", "exec"), namespace)
        mutant = namespace[changed.name]
    return mutant if part is function else _moved(function, namespace)


def _moved(function: Any, namespace: dict[str, Any]) -> FunctionType:
    moved = FunctionType(
        function.__code__, namespace, function.__name__, function.__defaults__, function.__closure__
    )
    moved.__kwdefaults__ = function.__kwdefaults__
    return moved
