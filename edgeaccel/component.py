"""Components by name, for command lines: `pe.GroupDatapath` with `lanes=128` and `formats=int4,int8`."""

import ast
import inspect
import pkgutil
from importlib import import_module

from amaranth.lib import wiring

import edgeaccel
from edgeaccel.config import PRESETS, Config
from edgeaccel.pe import float as pe_float

__all__ = ["arguments", "build", "constant_name", "find_component", "public_components", "read_settings", "show"]

_PACKAGES = ("pe", "systolic", "memory", "vector", "attention", "soc")
_CONSTANTS = PRESETS | {
    name: value for name, value in vars(pe_float).items() if isinstance(value, pe_float.FloatFormat)
}


def public_components():
    """Component classes that the hardware packages export, by the name that `build` takes: `pe.GroupDatapath`."""
    components = {}
    for package in pkgutil.iter_modules(edgeaccel.__path__):
        if package.name in _PACKAGES:
            module = import_module(f"edgeaccel.{package.name}")
            for name in getattr(module, "__all__", ()):
                if _is_component(value := getattr(module, name)):
                    components[f"{package.name}.{name}"] = value
    return components


def build(name, settings=()):
    """The component `name`, relative to `edgeaccel`, with parameters set by texts like `lanes=128`.

    A value is a Python literal in which words may stand without quotes: `formats=int4,int8` is `('int4', 'int8')`,
    `scales=fp16,` is `('fp16',)`. A word that names a constant of `edgeaccel.pe.float` or a preset is that:
    `format=FP16`, `config=tiny`.

    Raises
    ------
    ValueError
        If there is no such public component or parameter, a value is missing, is given twice or cannot be read, or the
        component refuses it.
    """
    component_type = find_component(name)
    values = arguments(component_type, settings)
    try:
        return component_type(**values)
    except (AttributeError, TypeError) as error:  # constructors check what a value is, less so what type it has
        raise ValueError(f"{name} cannot be built with {show(values)}: {error}") from error


def find_component(name):
    """The class of a public component: one of `public_components`, or by its module, `pe.group.GroupDatapath`.

    Raises
    ------
    ValueError
        If there is none; the message lists those that there are.
    """
    module_name, _, class_name = name.rpartition(".")
    if module_name and all(part.isidentifier() and not part.startswith("_") for part in name.split(".")):
        try:
            module = import_module(f"edgeaccel.{module_name}")
        except ModuleNotFoundError as error:
            if not error.name.startswith("edgeaccel."):
                raise
        else:
            value = getattr(module, class_name, None)
            if class_name in getattr(module, "__all__", ()) and _is_component(value):
                return value
    raise ValueError(f"no public component {name!r}; there are: {', '.join(public_components()) or 'none'}")


def arguments(component_type, settings=()):
    """Values of all parameters of a component class: those set by texts like `lanes=128`, else their defaults.

    Raises
    ------
    ValueError
        As for `build`.
    """
    parameters = inspect.signature(component_type).parameters
    defaults = {name: parameter.default for name, parameter in parameters.items()}
    allowed = f"{component_type.__name__} has the parameters: {show(defaults) or 'none'}"
    values = defaults | read_settings(settings, parameters, allowed)
    missing = [name for name, value in values.items() if value is inspect.Parameter.empty]
    if missing:
        raise ValueError(f"{', '.join(missing)} must be set; {allowed}")
    return values


def read_settings(settings, names, allowed):
    """Values by name, of texts like `lanes=128` for some of `names`; `allowed` is what an error tells of them.

    Raises
    ------
    ValueError
        If a name is unknown or is given twice, or a value cannot be read.
    """
    values = {}
    for setting in settings:
        name, equals, text = (part.strip() for part in setting.partition("="))
        if not equals:
            raise ValueError(f"a setting is NAME=VALUE, not {setting!r}")
        if name not in names:
            raise ValueError(f"unknown parameter {name!r}; {allowed}")
        if name in values:
            raise ValueError(f"parameter {name!r} is set twice, to {text!r} at last")
        values[name] = _read(name, text)
    return values


def _is_component(value):
    return isinstance(value, type) and issubclass(value, wiring.Component)


class _Words(ast.NodeTransformer):
    """Turns the names in an expression into constants: what they name, or else themselves."""

    def visit_Name(self, node):
        return ast.Constant(_CONSTANTS.get(node.id, node.id))


def _read(name, text):
    try:
        return ast.literal_eval(_Words().visit(ast.parse(text, mode="eval")))
    except (SyntaxError, ValueError):
        raise ValueError(f"{name} must be a Python literal or words, like 128 or int4,int8, not {text!r}") from None


def show(values):
    """`name=value, ...` as a user would write it; without a value where there is none."""
    return ", ".join(
        name if value is inspect.Parameter.empty else f"{name}={constant_name(value)}" for name, value in values.items()
    )


def constant_name(value):
    """A value as a user would write it: by name where `build` knows one."""
    names = {constant: name for name, constant in _CONSTANTS.items()}
    return names[value] if isinstance(value, (Config, pe_float.FloatFormat)) and value in names else repr(value)
