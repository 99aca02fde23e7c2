"""`grapnel bench`: everything there is to say about a labelled dataset, as a page and as JSON."""

from argparse import Namespace
from pathlib import Path

from rich.text import Text

from api.cli_output import Output, facts, visible
from index.errors import ConfigError
from retrieval.collection_config import FILE as COLLECTION_FILE
from retrieval.collection_config import CollectionConfig, DenseField, read_collection_config
from retrieval.config import override, parse
from retrieval.encoders import EncoderConfig
from retrieval.lexical import LexicalConfig
from retrieval.pipeline_config import read_pipeline


def bench(args: Namespace, output: Output) -> int:
    """Measure what is not measured yet, and say where the report is and what it found."""
    from evaluation.bench import PAGE, RESULTS, BenchConfig, run_bench  # noqa: PLC0415  evaluation is reached lazily
    from evaluation.bench_pipelines import Named  # noqa: PLC0415  as above
    from evaluation.findings import findings  # noqa: PLC0415  as above

    encoder = _encoder(args)
    paths = _names([Path(name) for name in args.pipeline])
    named = []
    for name, path in paths.items():
        collection = _collection(path, encoder)
        named.append(Named(name, collection, read_pipeline(path, collection)))
    config = BenchConfig(
        dataset=Path(args.dataset),
        out=Path(args.out),
        encoder=encoder,
        pipelines=tuple(named),
        measures=tuple(dict.fromkeys(args.measures.split())),
        tier=args.tier,
        split=args.split,
        seed=args.seed,
    )
    with output.progress() as stages:
        results = run_bench(config, stages)
    said = findings(results)
    page, table = config.out / PAGE, config.out / RESULTS
    sections = results["sections"]
    value = {
        "page": str(page),
        "results": str(table),
        "dataset": results["dataset"],
        "findings": said,
        "measured": [name for name, section in sections.items() if "result" in section],
        "left_out": {name: section["left_out"] for name, section in sections.items() if "left_out" in section},
    }
    rows = {"page": str(page), "numbers": str(table), "left out": ", ".join(value["left_out"]) or "nothing"}
    output.answer(value, facts(rows), Text(), *(Text(f"- {visible(sentence)}") for sentence in said))
    return 0


def _encoder(args: Namespace) -> EncoderConfig:
    table = {} if args.encoder is None else {"kind": args.encoder}
    return parse(EncoderConfig, override(table, args.set), "--encoder/--set")


def _names(paths: list[Path]) -> dict[str, Path]:
    """Return a name for each file: that of its folder where all are called alike, else its own."""
    stems = [path.stem for path in paths]
    names = stems if len(set(stems)) == len(stems) else [path.resolve().parent.name for path in paths]
    if len(set(names)) < len(names):
        raise ConfigError(f"pipelines {', '.join(map(str, paths))}: expected files or folders of unlike names")
    return dict(zip(names, paths, strict=True))


def _collection(pipeline: Path, encoder: EncoderConfig) -> CollectionConfig:
    """Return the collection that a pipeline searches: of the collection.toml beside it, or else the default one."""
    beside = pipeline.parent / COLLECTION_FILE
    if beside.is_file():
        return read_collection_config(beside)
    return CollectionConfig(fields={"dense": DenseField(encoder), "lexical": LexicalConfig()})
