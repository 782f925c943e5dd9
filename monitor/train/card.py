"""The model card: what a model directory's README says, all of it from the manifest, so that no figure is typed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .dataset import HYPOTHESES


def render(manifest: Mapping[str, Any]) -> str:
    """The card as Markdown. ``manifest`` is the file's JSON."""
    m, t = manifest["metrics"], manifest["training"]
    hypotheses = [h for h in HYPOTHESES if f"auc.{h}" in m]
    attacks = sorted({n.split(".")[1] for n in m if n.startswith(("recall.", "left_out."))}, key=_natural)
    honest = sorted((n.split(".")[1] for n in m if n.startswith("honest_over.")), key=_natural)
    lines = [
        f"# {manifest['name']} {manifest['version']}: which hypothesis an account's last requests look like",
        "",
        "Written by `monitor train` from `manifest.json` beside it; do not edit.",
        "",
        f"**What it is.** A small set network (attention pooling with four queries, mean and second moment) over up to "
        f"{manifest['sets']['size']} request vectors of {manifest['sets']['width']} bytes and "
        f"{len(manifest['features'])} aggregates of the account. `model.onnx` reads an account, `pool.onnx` the same "
        f"weights over up to {manifest['sets']['pool']} requests of a campaign. Licence: {manifest['licence']}.",
        "",
        "**What it reads.** Of a request: quantised shape scalars and phrase flags of the prompt, token counts, "
        "parameters, the gap before it, repetition. Of the account: shares, means and spreads of the same, how many "
        "different keys, networks, clients and models, its age, changes against its own past. No text, no hash, no id, "
        "no country, no network's name, no script, no hour of the day, no volume.",
        "",
        f"**What it gives.** A probability for each of: {', '.join(HYPOTHESES)}. They are not exclusive. Calibrated "
        f"(Platt, in the graph) on tenants that were not trained on, as if {t['prevalence']:.0%} of accounts were "
        "abusive. It is evidence of the family `classifier`, which never counts toward HIGH.",
        "",
        "**What it was trained on.** Simulated traffic alone (`monitor simulate`): "
        f"{len(t['logs'])} logs, {m['accounts.train']:,.0f} accounts ({m['abusive_accounts.train']:,.0f} abusive) and "
        f"{m['sets.train']:,.0f} sets to fit, {m['accounts.calibrate']:,.0f} accounts to calibrate, "
        f"{m['accounts.test']:,.0f} to measure. No account or campaign is in two of the three. Fields were dropped, "
        "sets thinned and ordinary requests mixed in at random (up to 70 %), so that a missing field decides nothing.",
        "",
        "## On tenants it never saw",
        "",
        "Each account counts once, by its highest score.",
        "",
        "| hypothesis | AUC | recall where 1 % of honest accounts are over | Brier score of sets |",
        "|---|---|---|---|",
        *(
            f"| {h} | {m[f'auc.{h}']:.3f} | {m[f'recall_at_1pct.{h}']:.0%} | {m[f'brier.{h}']:.4f} |"
            for h in hypotheses
        ),
        "",
        "Over a probability of 0.95 are, of distillation's accounts and of the honest ones, "
        f"{m['recall_over_95.distillation']:.1%} and {m['honest_over_95.distillation']:.2%}.",
        "",
        "Pools of 3 to 15 accounts, up to 128 requests, half of them with up to 70 % honest members mixed in and with "
        "fields dropped at random:",
        "",
        "| hypothesis | AUC | recall where 1 % of honest pools are over |",
        "|---|---|---|",
        *(
            f"| {h} | {m[f'pool_auc.{h}']:.3f} | {m[f'pool_recall_at_1pct.{h}']:.0%} |"
            for h in hypotheses
            if f"pool_auc.{h}" in m
        ),
        "",
        "Share of accounts over the threshold of 1 %, by kind of attack: of a kind it was trained on, and by a network "
        "that never saw the kind (trained a fifth as long).",
        "",
        "| scenario | known kind | unknown kind |",
        "|---|---|---|",
        *(f"| `{s}` | {_share(m, f'recall.{s}')} | {_share(m, f'left_out.{s}')} |" for s in attacks),
        "",
        "Honest accounts over the distillation threshold (1 % of all of them, by construction), by kind:",
        "",
        "| honest | over |",
        "|---|---|",
        *(f"| {f'`{h}`' if h != 'background' else h} | {_share(m, f'honest_over.{h}')} |" for h in honest),
        "",
        "## Where it does not hold",
        "",
        "- The simulator's scripts are its whole world: prompts of real attackers and customers vary more. The column "
        "of unknown kinds says what to expect of an attack that nobody simulated, and even it is kind: several "
        "scenarios share the generators of their prompts.",
        "- Shape scalars differ between languages. Countries and networks it does not see, but an honest customer who "
        "writes in a rare language with an attack's habits has been seen less than an English one.",
        "- Whoever imitates ordinary requests, or mixes enough of them in, is not found by it.",
        "- Its probability holds for the prevalence it was calibrated with. Judge by rank where yours is another.",
        "",
        "## Made with",
        "",
        "| what | value |",
        "|---|---|",
        f"| seed, steps, threads | {t['seed']}, {t['steps']}, {t['threads']} |",
        f"| PyTorch | {t['torch']} |",
        f"| logs | {', '.join(t['logs'])} |",
        f"| training data, SHA-256 | `{manifest['training_data_sha256']}` |",
        f"| `model.onnx`, SHA-256 | `{manifest['sha256']}` |",
        f"| layout of request vectors | `{manifest['sets']['layout_hash']}` |",
        f"| meaning of the aggregates | `{manifest['catalogue_hash']}` |",
        "",
    ]
    return "\n".join(lines)


def _share(metrics: Mapping[str, float], name: str) -> str:
    return f"{metrics[name]:.0%}" if name in metrics else "-"


def _natural(name: str) -> tuple[str, int]:
    """S2 before S10."""
    digits = "".join(c for c in name if c.isdigit())
    return name.rstrip("0123456789"), int(digits or 0)
