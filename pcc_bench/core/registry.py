"""Compression methods by name. A row names a class; nothing is imported before it is asked for."""

import difflib
import inspect
from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, get_type_hints

from pcc_bench.core.errors import UsageError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from pcc_bench.core.compressor import Compressor

METHODS: dict[str, str] = {
    "full-context": "pcc_bench.baselines.controls:FullContext",
    "no-context": "pcc_bench.baselines.controls:NoContext",
    "truncated-context": "pcc_bench.baselines.controls:TruncatedContext",
    "random-context": "pcc_bench.baselines.controls:RandomContext",
    "bm25-context": "pcc_bench.baselines.controls:Bm25Context",
    "pcc": "pcc_bench.model.compressor:PccCompressor",
    "composed": "pcc_bench.baselines.composed:ComposedCompressor",
    "icae": "pcc_bench.baselines.icae:IcaeCompressor",
    "cocom": "pcc_bench.baselines.cocom:CocomCompressor",
    "pisco": "pcc_bench.baselines.pisco:PiscoCompressor",
    "autocompressor": "pcc_bench.baselines.autocompressor:AutoCompressor",
    "llmlingua2": "pcc_bench.baselines.llmlingua2:LlmLingua2",
    "token-classifier": "pcc_bench.baselines.token_classifier:TokenClassifier",
}

PLUGIN_GROUP = "pcc_bench.compressors"


def names() -> list[str]:
    """All method names, ours first, then those of installed plug-ins (entry-point group `pcc_bench.compressors`)."""
    plugins = sorted(point.name for point in entry_points(group=PLUGIN_GROUP) if point.name not in METHODS)
    return [*METHODS, *plugins]


def get(name: str) -> "type[Compressor]":
    """The class of a method; the error of an unknown one suggests the nearest name."""
    own = [EntryPoint(name, METHODS[name], PLUGIN_GROUP)] if name in METHODS else []
    for point in own or entry_points(group=PLUGIN_GROUP, name=name):
        method: type[Compressor] = point.load()
        return method
    raise UsageError(f"unknown method '{name}'{suggest(name, names())}")


def nearest(word: str, options: list[str]) -> str | None:
    return next(iter(difflib.get_close_matches(word, options, n=1, cutoff=0.7)), None)


def suggest(word: str, options: list[str]) -> str:
    """The tail of a sentence about an unknown word: ": did you mean 'pcc'?" or the whole list."""
    near = nearest(word, options)
    return f": did you mean '{near}'?" if near else ": known are " + ", ".join(options)


def typed(kind: "type[Compressor]", options: Mapping[str, Any], where: str) -> dict[str, Any]:
    from pcc_bench.core.documents import checked

    return checked(options_of(kind), options, where).model_dump(exclude_unset=True)


@cache
def options_of(kind: "type[Compressor]") -> "type[BaseModel]":
    """The options of a method: names, types and defaults of the arguments of its `load`."""
    from pydantic import ConfigDict, create_model  # methods are listed without it

    types = get_type_hints(kind.load, include_extras=True)
    fields: dict[str, Any] = {
        name: (types.get(name, Any), parameter.default)
        for name, parameter in inspect.signature(kind.load).parameters.items()
        if name not in ("pretrained", "decoder")
    }
    config = ConfigDict(coerce_numbers_to_str=True, arbitrary_types_allowed=True, protected_namespaces=())
    return create_model(f"{kind.__name__}Options", __config__=config, **fields)
