"""``monitor corpus build|list|show|test``: known public instruction sets and benchmarks as keyed filters."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import BadInput, Problem
from .common import ConfigOption, JsonOption, guarded, out, table, write_json

if TYPE_CHECKING:
    from ..settings import Settings
    from ..sketch import CorpusKey
    from ..sketch.corpora import Corpus

app = typer.Typer(no_args_is_help=True, help="Known public instruction sets and benchmarks, as keyed filters.")

DirOption = Annotated[Path | None, typer.Option("--dir", help="Directory of corpora; none: corpora.dir.")]
SeedOption = Annotated[
    int | None,
    typer.Option(
        help="Key by this seed, as a backtest without keys does. Anyone can compute it: never for a real log."
    ),
]
ColumnOption = Annotated[
    list[str] | None,
    typer.Option("--column", "-k", help="Column with the text; several are joined by line ends. None: a usual name."),
]
_PROBES = 10_000_000
_AT_A_TIME = 20_000


@app.command()
@guarded
def build(
    name: Annotated[str, typer.Argument(help="Name of the corpus, which evidence will show.")],
    files: Annotated[list[Path], typer.Argument(help="NDJSON, JSON array, Parquet or plain text (an item a line).")],
    column: ColumnOption = None,
    directory: DirOption = None,
    config: ConfigOption = None,
    seed: SeedOption = None,
    bit: Annotated[int | None, typer.Option(help="Its bit among all corpora, 0 to 31; none: that of the file that it "
                                            "replaces, or the first that is free.")] = None,
    bits: Annotated[int, typer.Option(help="Bits of a fingerprint: 8, 16 or 32. False positives: 2 to the minus that.")
                    ] = 32,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Make NAME.corpus from the source files. It holds keyed hashes alone, no text."""
    from ..sketch.corpora import SUFFIX, build_corpus
    from ..source.texts import read_texts

    settings, key = _key(config, seed)
    where = _directory(directory, settings)
    where.mkdir(parents=True, exist_ok=True)
    taken = {c.header.name: c.header.bit for c in _read(where, None)}
    free = next((b for b in range(32) if b not in {v for n, v in taken.items() if n != name}), -1)
    chosen = bit if bit is not None else taken.get(name, free)
    texts = (text for file in files for text in read_texts(file, column or ()))
    corpus = build_corpus(name, texts, key, bit=chosen, bits=bits)
    corpus.save(where / f"{name}{SUFFIX}", key)
    if as_json:
        write_json(asdict(corpus.header))
        return
    h = corpus.header
    out.print(
        f"{where / (name + SUFFIX)}: {h.items:,} items ({h.repeated:,} repeated, {h.short:,} too short), "
        f"bit {h.bit}, false positives {h.false_positive_rate:.2g} a look-up", markup=False, soft_wrap=True,
    )  # fmt: skip


@app.command("list")
@guarded
def list_command(directory: DirOption = None, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List the corpora of a directory."""
    headers = [c.header for c in _read(_directory(directory, _settings(config)), None)]
    if as_json:
        write_json([asdict(h) for h in headers])
        return
    rows = [(h.bit, h.name, f"{h.items:,}", f"{h.false_positive_rate:.2g}", h.key_id) for h in headers]
    out.print(table("Corpora", ("bit", "name", "items", "false positives", "key of"), rows))


@app.command()
@guarded
def show(
    name: Annotated[str, typer.Argument(help="Name of the corpus.")],
    directory: DirOption = None,
    config: ConfigOption = None,
    seed: SeedOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one corpus; exit 2 where it is damaged or under another key."""
    header = _one(name, directory, config, seed).header
    if as_json:
        write_json(asdict(header))
    else:
        out.print(table(name, ("", ""), asdict(header).items()))


@app.command("test")
@guarded
def look_up(
    name: Annotated[str, typer.Argument(help="Name of the corpus.")],
    files: Annotated[
        list[Path] | None, typer.Argument(help="Texts to look up, as for build; none: random keys.")
    ] = None,
    column: ColumnOption = None,
    directory: DirOption = None,
    config: ConfigOption = None,
    seed: SeedOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say how many texts of the files are items of it; without files measure its rate of false positives."""
    from ..source.texts import read_texts

    corpus = _one(name, directory, config, seed)
    if files:
        _, key = _key(config, seed)
        found = _look_up(corpus, key, (text for file in files for text in read_texts(file, column or ())))
    else:
        found = _false_positives(corpus)
    if as_json:
        write_json(found)
    else:
        out.print(table(name, ("", ""), found.items()))


def _look_up(corpus: Corpus, key: CorpusKey, texts: Iterable[str]) -> dict[str, Any]:
    import numpy as np

    from ..sketch import Corpora, Keyring, Sketcher
    from ..sketch.kernel import CORPUS, texts_of

    # Items do not depend on the sketch key.
    sketcher = Sketcher(Keyring.generate(), Corpora.of(key, [corpus]))
    read = hits = 0
    items: set[int] = set()
    waiting: list[str] = []

    def work() -> None:
        nonlocal hits
        made = sketcher.sketch_texts(texts_of(waiting), None, np.zeros(len(waiting), np.int64), want=CORPUS)
        if made.corpus_item is not None:
            known = made.corpus_item[made.corpus_item != 0]
            hits += len(known)
            items.update(known.tolist())

    for text in texts:
        read += 1
        waiting.append(text)
        if len(waiting) == _AT_A_TIME:
            work()
            waiting.clear()
    if waiting:
        work()
    return {"texts": read, "hits": hits, "share": hits / read if read else None, "items": len(items)}


def _false_positives(corpus: Corpus) -> dict[str, Any]:
    import numpy as np

    from ..sketch.fuse import has_many

    seed, segment, spread, mask = corpus.fuse.params()
    keys = np.random.default_rng(1).integers(1, 1 << 63, _PROBES, dtype=np.uint64)
    found = has_many(keys, corpus.fuse.prints, np.uint64(seed), segment, spread, np.uint64(mask))
    return {"look-ups": _PROBES, "false": found, "expected": _PROBES * corpus.header.false_positive_rate}


def _settings(config: Path | None) -> Settings:
    from ..settings import load_settings

    return load_settings(config)


def _key(config: Path | None, seed: int | None) -> tuple[Settings, CorpusKey]:
    from .. import wiring
    from ..sketch import Keyring

    settings = _settings(config)
    keys = wiring.keyring(settings, generated=None if seed is None else lambda: Keyring.from_seed(seed))
    return settings, wiring.corpus_key(settings, keys)


def _directory(given: Path | None, settings: Settings) -> Path:
    where = given or settings.corpora.dir
    if where is None:
        raise BadInput([Problem("arguments", 0, "no directory of corpora: give --dir, or set corpora.dir")])
    return where


def _read(directory: Path, key: CorpusKey | None) -> list[Corpus]:
    from ..sketch.corpora import corpus_files, read_corpus

    return [read_corpus(path, key) for path in corpus_files(directory)]


def _one(name: str, directory: Path | None, config: Path | None, seed: int | None) -> Corpus:
    from ..sketch.corpora import SUFFIX, read_corpus

    settings, key = _key(config, seed)
    where = _directory(directory, settings)
    known = [c.header.name for c in _read(where, None)]
    if name not in known:
        raise BadInput([Problem(str(where), 0, f"no corpus {name!r}; there are {', '.join(known) or 'none'}")])
    return read_corpus(where / f"{name}{SUFFIX}", key)
