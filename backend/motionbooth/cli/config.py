"""Options of a command in a TOML file. The command's own parameters are the only list of them."""

from __future__ import annotations

import ast
import inspect
import json
import math
import textwrap
import tomllib
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import msgspec
import typer
from motionbooth_protocol.errors import InvalidInput
from motionbooth_protocol.wording import in_words
from msgspec.inspect import BoolType, FloatType, IntType, ListType, LiteralType, StructType, UnionType, type_info
from typer.core import TyperCommand

from motionbooth.cli.home import DEFAULT_HOME

CONFIG_FILE = "motionbooth.toml"
_NOT_IN_FILES = {"config", "print_config"}


@dataclass(frozen=True)
class Key:
    """One key of a file."""

    name: str
    parameter: str
    """The command's parameter that it sets."""
    kind: Any
    """The type of its value, with its bounds as msgspec's Meta."""
    help: str
    is_path: bool = False


class ConfiguredCommand(TyperCommand):
    """A command with an option `--config FILE`; the command line wins over the file.

    A command with a `--home` reads the file motionbooth.toml in it, if there is one and no other is named.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Raises InvalidInput for a file that cannot be used, naming the file, the key and what was expected."""
        if not ctx.resilient_parsing and "--help" not in args:
            given, _, _ = self.make_parser(ctx).parse_args(list(args))
            if (file := self._file(given)) is not None:
                ctx.default_map, ctx.obj = self._read(ctx, file)
        return super().parse_args(ctx, args)

    def _file(self, given: Mapping[str, Any]) -> Path | None:
        if isinstance(named := given.get("config"), str):
            return Path(named)
        if all(parameter.name != "home" for parameter in self.params):
            return None
        home = given.get("home")
        usual = (Path(home) if isinstance(home, str) else DEFAULT_HOME) / CONFIG_FILE
        return usual if usual.is_file() else None

    def file_keys(self) -> list[Key]:
        """One for each parameter of the command but those about the file itself, in their order."""
        hints = get_type_hints(inspect.unwrap(self.callback), include_extras=True) if self.callback else {}
        found = [_key(parameter, hints[parameter.name]) for parameter in self.params if parameter.name in hints]
        return [key for key in found if key.parameter not in _NOT_IN_FILES]

    def more_file_keys(self) -> list[Key]:
        """Keys that are no option of the command; their values are in the context's `obj`."""
        return []

    def _read(self, ctx: Any, file: Path) -> tuple[dict[str, Any], dict[str, Any]]:
        """The file's values of the command's parameters, and its other values."""
        own, more = ({key.name: key for key in keys} for keys in (self.file_keys(), self.more_file_keys()))
        values = _values(file, {**more, **own}, f"motionbooth {ctx.info_name}")
        options = {own[name].parameter: value for name, value in values.items() if name in own}
        for parameter in self.params:
            if parameter.name in options:
                try:
                    parameter.process_value(ctx, options[parameter.name])
                except typer.BadParameter as error:
                    name = next(key.name for key in own.values() if key.parameter == parameter.name)
                    raise InvalidInput(
                        '"{key}" in {file} cannot be used: {problem}', key=name, file=file, problem=error.message
                    ) from error
        return options, {name: value for name, value in values.items() if name not in own}


def _key(parameter: Any, hint: Any) -> Key:
    """The key of a parameter: named like its option, with underscores for hyphens; a list, like the parameter."""
    kind, info = get_args(hint)[:2]
    kind = _without_none(kind)
    is_path = kind in (Path, list[Path])
    if is_path:
        kind = str if kind is Path else list[str]
    if info.min is not None or info.max is not None:
        kind = Annotated[kind, msgspec.Meta(ge=info.min, le=info.max)]
    is_list = get_origin(kind) is list
    name = parameter.name if is_list else max(parameter.opts, key=len).lstrip("-").replace("-", "_")
    return Key(name, parameter.name, kind, parameter.help or "", is_path)


def _without_none(kind: Any) -> Any:
    if get_origin(kind) not in (Union, types.UnionType):
        return kind
    return Union[tuple(part for part in get_args(kind) if part is not types.NoneType)]  # noqa: UP007 (computed)


def field_keys(struct: type[msgspec.Struct]) -> list[Key]:
    """A key for each field of a struct, described by the string below it in its source."""
    (source,) = ast.parse(textwrap.dedent(inspect.getsource(struct))).body
    assert isinstance(source, ast.ClassDef)
    about = {
        ast.unparse(field.target): ast.literal_eval(text.value)
        for field, text in pairwise(source.body)
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr)
    }
    fields = msgspec.structs.fields(struct)
    return [Key(each.name, each.name, _without_none(each.type), about.get(each.name, "")) for each in fields]


def _values(file: Path, keys: Mapping[str, Key], command: str) -> dict[str, Any]:
    try:
        found = tomllib.loads(file.read_text(encoding="utf-8-sig"))  # Windows' editor writes the signature
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInput("{file} is not in TOML: {problem}.", file=file, problem=in_words(error)) from error
    for name in found:
        _check_known(name, keys, file, command)
    return {name: _converted(name, value, keys[name].kind, keys[name].is_path, file) for name, value in found.items()}


def _check_known(name: str, known: Mapping[str, Any], file: Path, command: str) -> None:
    if name not in known:
        near = get_close_matches(name.replace("-", "_"), known, n=1)
        if near:
            template = '"{key}" in {file} is no setting of {command}. Did you mean "{known}"?'
        else:
            template = '"{key}" in {file} is no setting of {command}. Its settings are: {known}.'
        raise InvalidInput(
            template, key=name, file=file, command=command, known=near[0] if near else ", ".join(sorted(known))
        )


def _converted(name: str, value: Any, kind: Any, is_path: bool, file: Path) -> Any:
    """The value as `kind`; paths are relative to the file's folder."""
    info = type_info(kind)
    if isinstance(info, StructType) and isinstance(value, dict):
        fields = {key.name: key for key in field_keys(info.cls)}
        for part in value:
            _check_known(part, fields, file, f'"{name}"')
        return {
            part: _converted(f"{name}.{part}", inner, fields[part].kind, False, file) for part, inner in value.items()
        }
    try:
        if isinstance(value, float) and not math.isfinite(value):
            raise msgspec.ValidationError("not finite")
        converted = msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise InvalidInput(
            '"{key}" in {file} is {value}, but must be {expected}.',
            key=name,
            file=file,
            value=_shortened(value),
            expected=expected(kind),
        ) from error
    if not is_path:
        return converted
    folder = file.absolute().parent
    paths = [str(folder / Path(each).expanduser()) for each in (value if isinstance(value, list) else [value])]
    return paths if isinstance(value, list) else paths[0]


def _shortened(value: Any) -> str:
    text = "a table" if isinstance(value, dict) else toml_value(value)
    return text if len(text) <= 60 else text[:60] + "..."


def expected(kind: Any) -> str:
    """In words: "a whole number, at least 1"."""
    match type_info(kind) if not isinstance(kind, msgspec.inspect.Type) else kind:
        case BoolType():
            return "true or false"
        case IntType() as number:
            return "a whole number" + _bounds(number)
        case FloatType() as number:
            return "a number" + _bounds(number)
        case LiteralType(values):
            return "one of " + ", ".join(json.dumps(value) for value in values)
        case ListType(item_type=item):
            return f"a list, each entry {expected(item)}"
        case UnionType(types=parts):
            return expected(next(part for part in parts if not isinstance(part, msgspec.inspect.NoneType)))
        case StructType():
            return "a table"
    return "text in quotes"


def _bounds(number: IntType | FloatType) -> str:
    words = {"at least": number.ge, "above": number.gt, "at most": number.le, "below": number.lt}
    return "".join(f", {word} {bound:.10g}" for word, bound in words.items() if bound is not None)


def toml_value(value: Any) -> str:
    """A text, path, number, truth value or list as in TOML."""
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    if isinstance(value, float):
        return repr(value)  # "inf" and "nan" are TOML, too
    if isinstance(value, bool | int):
        return str(value).lower()
    text = str(value.absolute() if isinstance(value, Path) else value)
    # A string of JSON is one of TOML but for this sign.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _toml_lines(key: Key, value: Any) -> Iterator[str]:
    """The lines of a key with its description; commented out if the value is None."""
    description = " ".join(key.help.replace("\\[", "[").split()).rstrip(".")  # typer needs the backslash
    about = expected(key.kind)
    yield f"# {description}. {about[0].upper()}{about[1:]}."
    if isinstance(value, msgspec.Struct):
        yield f"[{key.name}]"
        for field in field_keys(type(value)):
            yield from _toml_lines(field, getattr(value, field.name))
    else:
        yield f"# {key.name} =" if value is None else f"{key.name} = {toml_value(value)}"
        yield ""


def config_text(ctx: typer.Context, values: Mapping[str, Any] | None = None) -> str:
    """The file with which the command runs as it does now.

    `values`: of the keys that are no option of the command, and of parameters that have another value than was given.
    """
    command = ctx.command
    assert isinstance(command, ConfiguredCommand)
    lines = [f"# The settings of `motionbooth {ctx.info_name}`. The command line wins. A commented key is not set.", ""]
    own = command.file_keys()
    named = {key.name for key in own}
    known = {**ctx.params, **(values or {})}
    keys = [*own, *(key for key in command.more_file_keys() if key.name not in named)]
    # Tables last: what follows one belongs to it.
    for key in sorted(keys, key=lambda key: isinstance(known[key.parameter], msgspec.Struct)):
        lines += _toml_lines(key, known[key.parameter])
    return "\n".join(lines)
