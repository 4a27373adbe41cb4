"""lm-eval model classes by name (`pcc_bench.host.models:pcc`): `CompressedLM` with a method, made on first use."""

from pcc_bench.core import registry


def __getattr__(attribute: str) -> type:
    methods = {name.replace("-", "_"): name for name in registry.names()}
    if attribute not in methods:
        raise AttributeError(f"module {__name__!r} has no attribute {attribute!r}")
    from pcc_bench.host.lm import CompressedLM

    model = type(attribute, (CompressedLM,), {"method": methods[attribute], "__module__": __name__})
    globals()[attribute] = model
    return model
