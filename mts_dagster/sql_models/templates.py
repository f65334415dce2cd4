"""The Jinja of the SQL folder: what a template may use, what it refers to, and its text for given values.

What belongs here: parsing, checking and rendering of template files. Only the part of dbt's Jinja that MTS gives a
meaning is accepted; anything else is an error with file and line, found before anything is rendered. What ``ref``
and the others return is decided in ``render``.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from jinja2 import ChoiceLoader, FileSystemLoader, PrefixLoader, StrictUndefined, TemplateSyntaxError, meta, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from mts_dagster.sql_models.errors import SqlModelError

NAMES = frozenset({"ref", "source", "config", "var", "is_incremental", "this", "target", "model"})
BUILTIN_TESTS = "builtin/generic_tests.sql"
FOREIGN_NODES = (nodes.Import, nodes.FromImport, nodes.Include, nodes.Extends, nodes.Block)
SOURCE_ARGUMENTS = 2


@dataclass(frozen=True)
class Reference:
    """A ``ref`` or ``source`` in a template.

    Attributes:
        kind: which of the two.
        names: its arguments.
        is_whole: whether it is written ``ref(...).render()`` and so not filtered to the batch.
        path: file it stands in, which may be a macro's.
        line: line in that file.
    """

    kind: Literal["ref", "source"]
    names: tuple[str, ...]
    is_whole: bool
    path: str
    line: int


class _GenericTestTag(Extension):
    """``{% test name(arguments) %} ... {% endtest %}``: a macro called ``test_<name>``, as in dbt."""

    tags = {"test"}  # noqa: RUF012 - declared so by Jinja

    def parse(self, parser: Parser) -> nodes.Macro:
        """Parse the tag like ``macro``."""
        node = nodes.Macro(lineno=next(parser.stream).lineno)
        node.name = "test_" + parser.parse_assign_target(name_only=True).name
        parser.parse_signature(node)
        node.body = parser.parse_statements(("name:endtest",), drop_needle=True)
        return node


class Templates:
    """The templates of one folder, each read and compiled once.

    Args:
        root: the SQL folder.
        macro_files: files with macros and generic tests, relative to ``root``.
    """

    def __init__(self, root: Path, macro_files: Iterable[str]) -> None:
        self._environment = ImmutableSandboxedEnvironment(
            loader=ChoiceLoader(
                [
                    PrefixLoader({"builtin": FileSystemLoader(Path(__file__).parent)}),
                    FileSystemLoader(root),
                ]
            ),
            undefined=StrictUndefined,
            extensions=[_GenericTestTag],
            auto_reload=False,
        )
        self._environment.globals.clear()
        self._trees: dict[str, nodes.Template] = {}
        self._paths: dict[str, str] = {}
        self._macro_files = (BUILTIN_TESTS, *macro_files)
        self._macros: dict[str, tuple[str, nodes.Macro]] = {}
        for path in self._macro_files:
            for macro in self._parse(path).find_all(nodes.Macro):
                if macro.name in self._macros or macro.name in NAMES:
                    raise SqlModelError(path, f"the name {macro.name} is already taken", macro.lineno)
                self._macros[macro.name] = (path, macro)
        for path in self._macro_files:
            self.check(path)

    @property
    def macro_names(self) -> frozenset[str]:
        """Names of all macros; a generic test's is ``test_<name>``."""
        return frozenset(self._macros)

    def check(self, path: str) -> None:
        """Find what MTS gives no meaning to, with its line."""
        tree = self._parse(path)
        for foreign in tree.find_all(FOREIGN_NODES):
            raise SqlModelError(path, "templates do not include or extend each other; use macros", foreign.lineno)
        try:
            unknown = meta.find_undeclared_variables(tree) - NAMES - self.macro_names
        except TemplateSyntaxError as error:
            raise SqlModelError(path, str(error.message), error.lineno) from None
        for node in tree.find_all(nodes.Name):
            if node.name in unknown:
                known = ", ".join(sorted(NAMES | {name for name in self.macro_names if name[:5] != "test_"}))
                raise SqlModelError(path, f"{node.name!r} is not known here; there are {known}", node.lineno)

    def references(self, path: str) -> tuple[Reference, ...]:
        """All ``ref`` and ``source`` calls of a template and of the macros it calls, also in unused branches."""
        found: list[Reference] = []
        seen: set[str] = set()
        todo: list[tuple[str, nodes.Node]] = [(path, self._parse(path))]
        while todo:
            place, tree = todo.pop()
            whole = {id(cast(nodes.Getattr, call.node).node) for call in tree.find_all(nodes.Call) if _is_render(call)}
            for call in tree.find_all(nodes.Call):
                if not isinstance(call.node, nodes.Name):
                    continue
                name = call.node.name
                if name in {"ref", "source"}:
                    found.append(_reference(call, place, is_whole=id(call) in whole))
                elif name in self._macros and name not in seen:
                    seen.add(name)
                    todo.append(self._macros[name])
        return tuple(found)

    def config_calls(self, path: str) -> tuple[int, ...]:
        """Lines of the template's ``config(...)`` calls."""
        return tuple(
            call.lineno
            for call in self._parse(path).find_all(nodes.Call)
            if isinstance(call.node, nodes.Name) and call.node.name == "config"
        )

    def render(self, path: str, values: Mapping[str, Any]) -> str:
        """Text of a template; ``values`` gives a meaning to ``NAMES``."""
        return self._run(path, lambda: self._environment.get_template(path).render(self._context(values)))

    def call(self, macro: str, arguments: Mapping[str, Any], values: Mapping[str, Any]) -> str:
        """Text of one macro."""
        path, _ = self._macros[macro]
        return self._run(path, lambda: str(self._context(values)[macro](**arguments)))

    def evaluate(self, expression: str, values: Mapping[str, Any]) -> Any:  # noqa: ANN401 - any expression
        """Value of an expression written in YAML, such as ``ref('x')``."""
        return self._environment.compile_expression(expression, undefined_to_none=False)(**values)

    def _parse(self, path: str) -> nodes.Template:
        if path not in self._trees:
            loader = cast(ChoiceLoader, self._environment.loader)
            text, filename, _ = loader.get_source(self._environment, path)
            self._paths[str(filename)] = path
            try:
                self._trees[path] = self._environment.parse(text, path, filename)
            except TemplateSyntaxError as error:
                raise SqlModelError(path, str(error.message), error.lineno) from None
        return self._trees[path]

    def _context(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """``values`` and all macros, which see the same names and one another."""
        macros: dict[str, Any] = {}

        def late(name: str) -> Callable[..., Any]:
            return lambda *args, **kwargs: macros[name](*args, **kwargs)  # noqa: PLW0108 - looked up when called

        context = {**values, **{name: late(name) for name in self._macros}}
        for path in self._macro_files:
            module = self._environment.get_template(path).make_module(context)
            macros |= {name: getattr(module, name) for name, (place, _) in self._macros.items() if place == path}
        return context

    def _run(self, path: str, action: Callable[[], str]) -> str:
        try:
            return action()
        except SqlModelError:
            raise
        except Exception as error:
            frames = traceback.extract_tb(error.__traceback__)
            place = next((frame for frame in reversed(frames) if frame.filename in self._paths), None)
            if place is None:
                raise SqlModelError(path, str(error)) from error
            raise SqlModelError(self._paths[place.filename], str(error), place.lineno) from error


def _is_render(call: nodes.Call) -> bool:
    """Whether it is ``something().render()``."""
    attribute = call.node
    return isinstance(attribute, nodes.Getattr) and attribute.attr == "render" and not call.args


def _reference(call: nodes.Call, path: str, *, is_whole: bool) -> Reference:
    kind = cast(Literal["ref", "source"], cast(nodes.Name, call.node).name)
    names = [node.value for node in call.args if isinstance(node, nodes.Const) and isinstance(node.value, str)]
    if len(names) != len(call.args) or len(names) != (1 if kind == "ref" else SOURCE_ARGUMENTS) or call.kwargs:
        form = "ref('model')" if kind == "ref" else "source('group', 'table')"
        raise SqlModelError(path, f"write {form} with the names as text", call.lineno)
    return Reference(kind, tuple(names), is_whole, path, call.lineno)
