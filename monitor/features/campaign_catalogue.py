"""Every statistic of a candidate campaign: what rules over campaigns may name.

A value describes the candidate as of the end of a campaign step, over the one to two days before it unless it says
otherwise. Shares are means over unrelated tenants (organisations, else accounts). A ``_quantile`` is a conformal rank
among groups that nobody suspects (``monitor.campaigns.calibrate``): 1 is more suspicious than all of them.
"""

from __future__ import annotations

from typing import Literal

from monitor.features.catalogue import Family, Feature


def _c(name: str, family: Family, unit: str, meaning: str, *, needs: str = "", raw: str = "", low: float | None = 0.0,
       high: float | None = None) -> Feature:  # fmt: skip
    scope: Literal["campaign"] = "campaign"
    return Feature(
        name=name, family=family, window=None, unit=unit, meaning=meaning, low=low, high=high,
        needs=tuple(needs.split()), raw=tuple(raw.split()), scope=scope,
    )  # fmt: skip


_OPINIONS = {
    "distillation": "distillation", "resale": "resale", "account_farm": "account farms", "stolen_key": "stolen keys",
    "evaluation": "evaluation",
}  # fmt: skip
_SIZE = (
    _c("tenants", "linkage", "tenants", "unrelated organisations or accounts in the candidate", raw="account_id"),
    _c("members", "linkage", "accounts", "accounts in the candidate", raw="account_id"),
    _c("requests_recent", "volume", "requests", "requests of all members", raw="ts"),
)
_RATES = (
    _c("harvest_share", "content", "share", "prompts that ask for reasoning, grade, compare or generate data",
       needs="prompt", high=1),
    _c("elicitation_share", "content", "share", "prompts that ask for the hidden reasoning", needs="prompt", high=1),
    _c("rubric_share", "content", "share", "prompts that grade or want only a score", needs="prompt", high=1),
    _c("dataset_share", "content", "share", "prompts that ask for training data", needs="prompt", high=1),
    _c("benchmark_share", "content", "share", "prompts in exam form", needs="prompt", high=1),
    _c("human_share", "shape", "share", "prompts that say I or please", needs="prompt", high=1),
    _c("question_share", "shape", "share", "prompts with a question mark", needs="prompt", high=1),
    _c("follow_up_share", "shape", "share", "requests that continue a conversation", needs="turn_index",
       raw="n_messages", high=1),
    _c("at_cap_share", "shape", "share", "answers cut at their limit", needs="max_tokens",
       raw="output_tokens finish_reason", high=1),
    _c("stream_share", "shape", "share", "requests that stream", needs="stream", high=1),
    _c("tools_share", "shape", "share", "requests that offer tools", needs="tools", high=1),
    _c("structured_share", "shape", "share", "requests for JSON", needs="response_format", high=1),
    _c("batch_share", "shape", "share", "requests delivered by batch", needs="delivery", high=1),
    _c("error_share", "volume", "share", "requests answered 4xx or 5xx", raw="status", high=1),
    _c("short_share", "shape", "share", "answers under 64 tokens", raw="output_tokens status", high=1),
    _c("harvest_breadth", "content", "share", "tenants a tenth of whose prompts harvest", needs="prompt", high=1),
)  # fmt: skip
_REST = (
    _c("template_share", "template", "share", "requests in templates that members share and hardly anybody else has",
       needs="prompt", high=1),
    _c("age_days_median", "linkage", "days", "median age of the accounts", needs="account_created_at", low=None),
    _c("free_share", "linkage", "share", "tenants on free, trial or credit billing", needs="billing_type", high=1),
    _c("invoiced_share", "linkage", "share", "tenants that are invoiced", needs="billing_type", high=1),
    _c("link_bits", "linkage", "bits", "median rarity of what ties a member to the others, the rarest value of each "
       "group of links added up", raw="payment_fp ip account_created_at contact_domain referral_fp"),
    _c("attested_share", "linkage", "share", "tenants tied by a link that the provider attests: payment, address, "
       "creation", raw="payment_fp ip account_created_at", high=1),
    _c("payment_link_share", "linkage", "share", "tenants that share a means of payment; unknown where most show none",
       needs="payment_fp", high=1),
    _c("network_link_share", "linkage", "share", "tenants that share an address prefix or system", needs="ip", high=1),
    _c("creation_link_share", "linkage", "share", "tenants made within hours of one another",
       needs="account_created_at", high=1),
    _c("blob_link_share", "replay", "share", "tenants that send back a reasoning blob that another one sent",
       needs="reasoning_blob_fp", high=1),
    _c("contact_link_share", "linkage", "share", "tenants that share a contact domain", needs="contact_domain", high=1),
    _c("referral_link_share", "linkage", "share", "tenants that share a referral", needs="referral_fp", high=1),
    _c("software_link_share", "client", "share", "tenants that share a rare client, handshake, tool schema or system "
       "prompt", needs="client_name", raw="user_agent ja4 tool_schema_fp system", high=1),
    _c("template_link_share", "template", "share", "tenants that share a template", needs="prompt", high=1),
    _c("link_groups", "linkage", "groups", "groups of links that hold half of the tenants together, of eight", high=8),
    _c("new_link_share", "history", "share", "tenants that took up the shared network or client after their first day",
       raw="ip client_name user_agent ja4", high=1),
    _c("new_model_share", "pivot", "share", "today's requests to a model released within three days; null without one",
       raw="model", high=1),
    _c("change_z", "history", "sd", "largest change of the members' conduct against their own past: mean paired "
       "difference over its standard error", raw="prompt output_tokens input_tokens status"),
    _c("uniformity", "shape", "share", "how alike members' token lengths and parameters are: 1 all the same, 0 as "
       "different as the population", raw="input_tokens output_tokens", high=1),
    _c("residual_share", "shape", "share", "prompts without words that many prompts of their partition share; null for "
       "prompts that came as sketches", needs="prompt", high=1),
    _c("shape_prompts", "shape", "prompts", "prompts whose shape is pooled: those without such words, eight at most "
       "of a tenant", needs="prompt"),
    _c("shape_score", "shape", "log odds", "shape of these prompts: whether they are instructions of a campaign rather "
       "than what people write; null under 20", needs="prompt", low=None),
    *(_c(f"opinion_{h}", "classifier", "probability", f"what the classifier says of {what}: the mean over tenants of "
         "its opinions of each account's last 32 requests; null where fewer than three tenants were read",
         raw="input_tokens output_tokens", high=1) for h, what in _OPINIONS.items()),
    _c("opinion_share", "classifier", "share", "tenants of which the classifier has read an account: it takes eight "
       "requests", raw="input_tokens output_tokens", high=1),
)  # fmt: skip
_RANKS = (
    _c("harvest_quantile", "content", "quantile", "rank of harvest_share", needs="prompt", high=1),
    _c("template_quantile", "template", "quantile", "rank of template_share", needs="prompt", high=1),
    _c("impersonal_quantile", "shape", "quantile", "rank of question_share, few questions being suspicious",
       needs="prompt", high=1),
    _c("uniformity_quantile", "shape", "quantile", "rank of uniformity", raw="input_tokens output_tokens", high=1),
    _c("new_link_quantile", "history", "quantile", "rank of new_link_share", raw="ip client_name", high=1),
    _c("pivot_quantile", "pivot", "quantile", "rank of new_model_share: moved to the new model more than others did "
       "that day", raw="model", high=1),
    _c("change_quantile", "history", "quantile", "rank of change_z", raw="prompt output_tokens", high=1),
    _c("at_cap_quantile", "shape", "quantile", "rank of at_cap_share", needs="max_tokens", high=1),
    _c("one_shot_quantile", "shape", "quantile", "rank of follow_up_share, few follow-ups being suspicious",
       needs="turn_index", high=1),
    _c("tools_quantile", "shape", "quantile", "rank of tools_share", needs="tools", high=1),
    _c("shape_quantile", "shape", "quantile", "rank of shape_score, among groups with as large a residual_share",
       needs="prompt", high=1),
    *(_c(f"opinion_{h}_quantile", "classifier", "quantile", f"rank of opinion_{h}", raw="input_tokens output_tokens",
         high=1) for h in _OPINIONS if h != "evaluation"),
    _c("product_absent_share", "client", "share", "accounts of which no first-party telemetry was ever seen",
       needs="context:product_seen", high=1),
    _c("replacements", "timing", "accounts", "bans of members after which another member was made within six hours",
       needs="context:account_banned account_created_at"),
    _c("sync_ratio", "timing", "ratio", "pairs of members active in one tick over as many as chance gives",
       raw="ts"),
    _c("sync_pairs", "timing", "pairs", "pairs of members active in one tick since the campaign was found", raw="ts"),
    _c("calibration_groups", "linkage", "groups", "groups that the ranks were taken among"),
    _c("calibration_shipped", "linkage", "groups", "of them, groups of simulated honest traffic that ship with the "
       "package: none once the log has 300 of its own"),
)  # fmt: skip

_CORPUS = (
    _c("corpus_share", "corpus", "share", "prompts that are items of known corpora; null where none is known",
       needs="prompt corpora", high=1),
    _c("corpus_items", "corpus", "items", "different items asked of the corpus that most are of (an estimate, a sixth "
       "wrong where one account asked over 31)", needs="prompt corpora"),
    _c("corpus_tenants", "corpus", "tenants", "tenants that asked an item of it", needs="prompt corpora"),
    _c("corpus_coverage", "corpus", "share", "of it, what was asked; null where its size is not known",
       needs="prompt corpora", high=1),
    _c("corpus_overlap", "corpus", "share", "1 less different items over the sum of each tenant's: 0 each item is one "
       "tenant's, near 1 all ask the same; null under ten pairs of a tenant and an item", needs="prompt corpora",
       high=1),
    _c("corpus_overlap_chance", "corpus", "share", "the overlap if each tenant had drawn as many at random; null where "
       "the corpus' size is not known", needs="prompt corpora", high=1),
    _c("corpus_apart_z", "corpus", "sd", "by how many standard deviations tenants share fewer items than by chance",
       needs="prompt corpora", low=None),
    _c("corpus_repeats", "corpus", "requests", "requests a different item: 1 each once", needs="prompt corpora", low=1),
    _c("corpus_models_per_item", "corpus", "models", "models that an item was put to, on average",
       needs="prompt corpora", raw="model", low=1, high=64),
    _c("corpus_largest_share", "corpus", "share", "of the items, those that the busiest tenant asked: 1 it asked all",
       needs="prompt corpora", high=1),
)  # fmt: skip

CAMPAIGN: tuple[Feature, ...] = (*_SIZE, *_RATES, *_REST, *_RANKS[:-2], *_CORPUS, *_RANKS[-2:])
"""Statistics of a candidate, in the order of ``monitor.campaigns.stage.COLUMNS``."""
