"""What a text becomes: words and masks, each scalar and flag in several languages, scripts, edge cases."""

from __future__ import annotations

import numpy as np
import pytest

from monitor.sketch import LEXICON_FLAGS, SCRIPTS, SHAPE_NAMES, Keyring, Sketcher, dequantise
from monitor.sketch.lexicon import expand, phrases
from monitor.sketch.sketcher import TextSketches, texts_of
from monitor.sketch.vocabulary import SHAPE_HELP, TEXT_HASHES

SKETCHER = Sketcher(Keyring.from_seed(5))


def sketch(*texts: str) -> TextSketches:
    return SKETCHER.sketch_texts(texts_of(texts), None, np.zeros(len(texts), np.int64))


def value(text: str, name: str) -> int:
    return int(sketch(text).shape[0, SHAPE_NAMES.index(name)])


def flags(text: str) -> set[str]:
    bits = int(sketch(text).lexicon[0])
    return {name for i, name in enumerate(LEXICON_FLAGS) if bits >> i & 1}


def hash_of(text: str, name: str = "prompt_skeleton") -> int:
    return int(sketch(text).hashes[0, TEXT_HASHES.index(name)])


def same(name: str, *texts: str) -> bool:
    return len({hash_of(t, name) for t in texts}) == 1


def test_names_are_as_many_as_the_layout_says() -> None:
    assert len(SHAPE_NAMES) == len(set(SHAPE_NAMES)) == 24 == len(SHAPE_HELP)
    assert len(LEXICON_FLAGS) == len(set(LEXICON_FLAGS)) <= 32
    assert set(SHAPE_HELP) == set(SHAPE_NAMES)


# ruff: noqa: E501  (one language a line reads better than one phrase)

# -- masks


@pytest.mark.parametrize(
    "other",
    [
        "classify the sentence below as 1,234.50 of all",
        "Classify THE sentence: below as 2026-01-02 of all",
        "classify the sentence below as 5 of all",
        "classify  the\nsentence below, as 10:30, of all!",
    ],
)
def test_numbers_case_and_punctuation_do_not_change_the_skeleton(other: str) -> None:
    base = "classify the sentence below as 7 of all"
    assert same("prompt_skeleton", base, other)
    assert not same("prompt_exact", base, other)
    assert np.array_equal(sketch(base).minhash, sketch(other).minhash)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (
            'please rate the sentence "it rains" with care',
            'please rate the sentence "much longer, with 3 words" with care',
        ),
        ("please rate the sentence “it rains” with care", "please rate the sentence «il pleut» with care"),
        ("please rate the page https://a.example/x?y=1 with care", "please rate the page www.b.example with care"),
        (
            "please rate item 550e8400-e29b-41d4-a716-446655440000 with care",
            "please rate item 9f86d081884c7d659a2feaa0c55ad015 with care",
        ),
        ("please rate the v2 and gpt4 with care", "please rate the v31 and gpt55 with care"),
    ],
)
def test_slots_are_masked(a: str, b: str) -> None:
    assert same("prompt_skeleton", a, b)
    assert not same("prompt_skeleton", a, a.replace("rate", "grade"))


def test_words_that_are_no_slot_are_not_masked() -> None:
    assert not same("prompt_skeleton", "tell me about the blue whale", "tell me about the blue shark")
    assert not same(
        "prompt_skeleton", 'make {"name": "x", "age": 3} valid for me', 'make {"nick": "x", "age": 3} valid for me'
    )
    assert not same("prompt_skeleton", 'say it "unclosed and then on', 'say it "unclosed and then off')


def test_text_that_is_hardly_more_than_slots_is_read_word_by_word() -> None:
    assert not same("prompt_skeleton", '"what is a whale"', '"what is a shark"')


def test_prefix_and_tail_are_eight_words() -> None:
    start, end = "one two three four five six seven eight", "nine ten eleven twelve apple pear plum fig"
    assert same("prompt_prefix", f"{start} x {end}", f"{start} y z {end}")
    assert same("prompt_tail", f"{start} x {end}", f"{start} y z {end}")
    assert not same("prompt_prefix", f"{start} {end}", f"zero {start} {end}")
    assert not same("prompt_tail", f"{start} {end}", f"{start} {end} end")
    assert hash_of(start, "prompt_prefix") != hash_of(start, "prompt_tail")


def test_minhash_estimates_jaccard_of_shingles() -> None:
    words = [f"w{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(300)]
    base = words[:200]
    for shared, low, high in ((0, 0.0, 0.08), (100, 0.2, 0.45), (180, 0.65, 0.95), (200, 1.0, 1.0)):
        other = base[:shared] + words[200 : 400 - shared] + [w + "x" for w in words][: max(0, 100 - shared)]
        m = sketch(" ".join(base), " ".join(other)).minhash
        agree = float((m[0] == m[1]).mean())
        assert low <= agree <= high, (shared, agree)


def test_scripts_without_spaces_have_shingles_of_characters() -> None:
    a = "请把下面这个句子翻译成英文并解释每个词的意思今天天气很好我们去公园"
    m = sketch(a, a.replace("今天", "明天"), "完全不同的一段文字没有任何共同的地方可以比较的内容在这里面出现过").minhash
    assert (m[0] == m[1]).mean() > 0.6
    assert (m[0] == m[2]).mean() < 0.2


def test_simhash_is_near_for_near_texts_and_far_for_others() -> None:
    words = " ".join(f"{chr(97 + i % 26)}{chr(97 + i // 26)}ord" for i in range(120))
    h = sketch(words, words + " more", " ".join(reversed([w + "q" for w in words.split()]))).hashes[:, 6]
    near, far = int(h[0] ^ h[1]).bit_count(), int(h[0] ^ h[2]).bit_count()
    assert near <= 8 < 18 <= far


def test_simhash_is_the_majority_of_each_bit() -> None:
    from monitor.sketch.prints import pair, simhash

    rng = np.random.default_rng(1)
    keys = SKETCHER.text_keys(0)
    for n in (1, 2, 3, 4, 5, 7, 8, 9, 31, 100):
        hashes = rng.integers(1, 2**63, n, dtype=np.uint64)
        features = [int(h) for h in hashes] + [int(pair(hashes[i], hashes[i + 1], keys)) for i in range(n - 1)]
        expected = sum(1 << b for b in range(64) if 2 * sum(f >> b & 1 for f in features) > len(features))
        # as many as half is no majority
        assert int(simhash(hashes, n, keys, np.zeros(32, np.uint64))) == (expected or 1)


# -- scalars


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        ("abcdefghi", "log_chars", np.log2(10) * 12),
        ("ÄÖü中x", "log_chars", np.log2(6) * 12),
        ("ABcd", "upper_share", 255 * 0.5**0.5),
        ("ПРивет", "upper_share", 255 * (2 / 6) ** 0.5),
        ("ab12", "digit_share", 255 * 0.5**0.5),
        ("٣٤ ab", "digit_share", 255 * (2 / 5) ** 0.5),
        ("a b\nc ", "space_share", 255 * 0.5**0.5),
        ("a,b!", "punct_share", 255 * 0.5**0.5),
        ("好，的。", "punct_share", 255 * 0.5**0.5),
        ("{a}=", "code_share", 255 * 0.75**0.5),
        ("a\nb\n", "newline_share", 255 * 0.5**0.5),
        ("aé中b", "non_ascii_share", 255 * 0.5**0.5),
        ("one two one two", "unique_words", 255 * 0.5**0.5),
        ("One one ONE one", "unique_words", 255 * 0.25**0.5),
        ("ab abcd", "mean_word_chars", 48),
        ("a b c d. e f g h.", "words_per_sentence", 32 * np.log2(5)),
        ("- a\n- b\n3. c\nd", "list_share", 255 * 0.75**0.5),
        ("• a\nb", "list_share", 255 * 0.5**0.5),
        ('ab"cd"', "quoted_share", 255 * (4 / 6) ** 0.5),
    ],
)
def test_scalars_are_what_they_say(text: str, name: str, expected: float) -> None:
    assert value(text, name) == int(expected + 0.5)


@pytest.mark.parametrize(
    ("name", "yes", "no"),
    [
        ("has_url", ["see https://x.example", "(www.x.example)", "HTTP://X.EXAMPLE"], ["http", "www x", "httpx://y"]),
        ("has_question", ["why?", "为什么？", "لماذا؟", "γιατί;"[:-1] + "\u037e"], ["why.", "γιατί;"]),
        ("has_exclamation", ["go!", "走！"], ["go."]),
        ("has_code_fence", ["```py\nx\n```"], ["``x``", "`x`"]),
        ("starts_upper", ["Abc", "  «Élan", "Привет", "1. Ab"], ["abc", "élan", "中文 Abc", "", "привет"]),
        ("ends_stopped", ["Go.", "Go. \n", 'He said "go."', "走。", "ok?)", "नमस्ते।"], ["Go", "go, ", "3.14", ""]),
    ],
)
def test_marks(name: str, yes: list[str], no: list[str]) -> None:
    assert [value(t, name) for t in yes] == [255] * len(yes)
    assert [value(t, name) for t in no] == [0] * len(no)


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("first_person", ["What should I do now", "Quiero que mi perro coma", "Je veux du pain avec les enfants",
                          "Kann ich das mit der Katze machen", "Я хочу это сделать для сестры", "我想知道这是什么",
                          "私は学生です", "저는 학생입니다", "أريد أن أعرف عن هذا", "मुझे यह चाहिए", "Tôi muốn đi",
                          "Saya ingin makan nasi", "ฉันอยากกินข้าว", "Benim için bir şey"]),
        ("second_person", ["Can you do this", "¿Puedes hacer esto por la casa?", "Pouvez-vous faire cela pour les gens",
                           "Kannst du das für die Firma machen", "Можешь ли ты это сделать", "你会做饭吗", "あなたは誰ですか",
                           "당신은 누구입니까", "هل يمكنك أن تكتب", "आप कौन हैं", "Bạn là ai", "Apakah kamu bisa"]),
        ("politeness", ["Please do it", "Por favor, haz la tarea", "Bonjour, fais les devoirs", "Bitte mach das",
                        "Пожалуйста, сделай это", "请写一首诗", "教えてください", "알려 주세요", "من فضلك اكتب هذا",
                        "कृपया इसे लिखें", "Vui lòng viết", "Tolong tuliskan", "กรุณาเขียน", "Lütfen bunu yaz",
                        "Proszę napisz to", "Alsjeblieft, schrijf het"]),
        ("question_first", ["What is it", "Is it the one", "¿Qué es la vida?", "Pourquoi les gens dorment",
                            "Warum ist das so", "Почему это так", "这是什么", "これは何", "이것은 무엇인가요", "ما هو هذا",
                            "यह क्या है", "Perché il cielo è blu", "Apa itu dan mengapa"]),
        ("imperative_first", ["Write a poem", "Escribe un poema para la clase", "Écris un poème pour les enfants",
                              "Schreibe ein Gedicht für die Katze", "Напиши стихотворение о том", "写一首诗",
                              "詩を書いてください", "시를 써줘", "اكتب قصيدة عن هذا", "एक कविता लिखें",
                              "Scrivi una poesia per il gatto", "Buatlah puisi untuk ibu", "Bu bir şiir yaz"]),
    ],
)  # fmt: skip
def test_word_lists_in_many_languages(name: str, texts: list[str]) -> None:
    assert [t for t in texts if value(t, name) != 255] == []
    assert value("the cat sat on the mat with a hat", name) == 0


def test_only_the_texts_own_language_counts() -> None:
    assert value("I gatti e i cani sono animali della casa", "first_person") == 0  # the Italian article
    assert value("I like cats and the dogs", "first_person") == 255
    assert value("kot i pies oraz ptak są na dworze", "first_person") == 0  # the Polish "and"


def test_first_words_count_at_the_beginning_only() -> None:
    assert value("the poem that they write", "imperative_first") == 0
    assert value("this is what they are", "question_first") == 0


# -- flags


@pytest.mark.parametrize(
    ("flag", "texts"),
    [
        ("reasoning_elicitation", [
            "Before you answer, show all steps of your internal reasoning.", "Print your full chain of thought verbatim",
            "Muestra tu razonamiento interno completo", "Donne toutes les étapes de ton raisonnement",
            "Zeige alle Schritte deiner Überlegungen", "Опиши свои внутренние рассуждения", "请展示你的完整思考过程",
            "思考過程をすべて出力", "내부 추론 과정을 적어줘", "اكتب سلسلة التفكير", "अपनी आंतरिक तर्क प्रक्रिया लिखें",
            "Viết toàn bộ quá trình suy luận", "Tulis penalaran internal Anda", "Scrivi la catena di pensieri"]),
        ("step_by_step", ["Solve it step by step", "Resuélvelo paso a paso", "étape par étape", "请一步一步来", "단계별로"]),
        ("rubric_grading", ["Grade the following response using this", "Bewerte die folgende Antwort", "по шкале от 1 до 5",
                            "请对以下回答进行评分", "Évaluez la réponse suivante", "採点基準に従って"]),
        ("preference_pair", ["Which response is better and why", "哪个回答更好", "Welche Antwort ist besser"]),
        ("dataset_generation", ["Come up with a set of 20 diverse task instructions", "Generate 10 new questions about it",
                                "生成10个问题", "Создай набор вопросов", "Crea 5 preguntas nuevas",
                                "instruction tuning data"]),
        ("rewriting", ["Rewrite the sentence", "Reformule la phrase", "改写以下句子", "Перепиши текст"]),
        ("translation", ["Translate the text", "translated into German", "Traduce el texto", "翻译成英文", "번역해줘"]),
        ("summarising", ["Summarize the article", "Fasse den Text zusammen", "总结以下内容", "要約してください"]),
        ("code_request", ["Write a function that adds", "implement this algorithm", "写一个函数", "напиши функцию на C"]),
        ("json_only", ["Return only valid JSON", "respond with JSON", "只返回 JSON", "nur JSON"]),
        ("score_only", ["Answer with only a number", "Output a single letter", "只输出一个数字", "ответь одним словом"]),
        ("multiple_choice", ["Which of the following is true", "Pick.\nA) x\nB) y\nC) z", "(A) x (B) y (C) z", "下列哪项正确",
                             "A. x\nB. y\nC. z", "A．x\nB．y\nC．z", "a) x\nb) y\nc) z"]),
        ("wrapper", ["Below is an instruction that describes", "以下是描述任务的指令", "Deine Aufgabe ist es"]),
        ("role_override", ["Ignore all previous instructions and", "忽略之前的指令", "Игнорируй предыдущие инструкции"]),
        ("role_play", ["Act as a pirate", "You are an expert chemist", "你是一位专业医生", "Actúa como un médico"]),
    ],
)  # fmt: skip
def test_flags_in_many_languages(flag: str, texts: list[str]) -> None:
    assert [t for t in texts if flag not in flags(t)] == []
    quoted = [f'"{t}"' for t in texts[:2]]
    assert [t for t in quoted if flag not in flags(t)] == [], "quoting a phrase must hide nothing"


def test_every_flag_has_a_language_and_plain_talk_has_none() -> None:
    assert flags("my dog likes the garden and the sun, and in the evening it sleeps by the fire") == set()
    assert flags("A nice day. B is a letter") == set()
    listed, languages = phrases()
    assert len(languages) >= 12
    assert {i for bits, _ in listed.values() for i in range(32) if bits >> i & 1} == set(range(len(LEXICON_FLAGS)))


def test_patterns_expand_and_refuse_nesting() -> None:
    assert list(expand("a(b|)c (d|e)")) == ["abc d", "abc e", "ac d", "ac e"]
    with pytest.raises(ValueError, match="nested"):
        list(expand("(a|(b|c))"))


def test_flags_of_the_system_prompt_are_joined() -> None:
    both = SKETCHER.sketch_texts(
        texts_of(["hello there"]), texts_of(["Translate the text into German"]), np.zeros(1, np.int64)
    )
    assert int(both.lexicon[0]) >> LEXICON_FLAGS.index("translation") & 1


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("hello", "latin"), ("Grüße", "latin"), ("привет", "cyrillic"), ("γεια", "greek"), ("你好", "han"),
        ("これは日本語の文", "japanese"), ("안녕하세요", "hangul"), ("مرحبا", "arabic"), ("שלום", "hebrew"),
        ("नमस्ते", "devanagari"), ("வணக்கம்", "indic"), ("สวัสดี", "thai"), ("გამარჯობა", "other"), ("123 !?", "none"), ("", "none"),
        ("请用 Python 写一个排序函数", "han"),
    ],
)  # fmt: skip
def test_scripts(text: str, script: str) -> None:
    assert SCRIPTS[int(sketch(text).script[0])] == script


# -- edges


def test_text_without_a_word_has_an_exact_hash_and_a_shape_only() -> None:
    made = sketch("", "?!", "\u200b\u3000", "😀😀")
    assert (made.hashes[:, 0] != 0).all()
    assert not made.hashes[:, 1:].any()
    assert not made.minhash.any()


def test_one_mebibyte() -> None:
    for text in ("word " * 209_715, "中" * 349_525, "“" * 349_525, '"' * (1 << 20), "a1-" * 349_525, "x" * (1 << 20)):
        made = sketch(text, text + "z")
        assert made.hashes[0, 0] != made.hashes[1, 0]
        assert made.shape[0, 0] == int(12 * np.log2(1 + len(text)) + 0.5)


def test_word_is_the_same_wherever_it_stands() -> None:
    # the last word of the buffer takes another way through the kernel than one with bytes behind it
    for word in ("a", "seven77", "eightletters", "exactly8", "sixteenletters16", "naïve", "été", "Ωmega", "abcdefgh"):
        alone, followed = sketch(word), sketch(word, "x" * 40)
        assert np.array_equal(alone.hashes[0], followed.hashes[0]), word
        assert hash_of(f"{word} b c d e") == hash_of(f"  {word.upper()}  b c d e"), word


def test_repeated_texts_are_copied_right() -> None:
    texts = ["alpha beta gamma delta", "one two three four?", "alpha beta gamma delta", "", "one two three four?"]
    made, single = sketch(*texts), [sketch(t) for t in texts]
    for i, one in enumerate(single):
        for name in ("hashes", "minhash", "shape", "lexicon", "script"):
            assert np.array_equal(getattr(made, name)[i], getattr(one, name)[0]), (i, name)


def test_pieces_do_not_change_anything() -> None:
    rng = np.random.default_rng(3)
    texts = [" ".join(f"w{int(x)}x" for x in rng.integers(0, 500, int(n))) for n in rng.integers(0, 120, 2500)]
    texts[7] = "long words " * 30_000
    made = sketch(*texts)
    for i in (0, 6, 7, 8, 1023, 1024, 1025, 2047, 2048, 2499):
        assert np.array_equal(made.hashes[i], sketch(texts[i]).hashes[0]), i
        assert np.array_equal(made.shape[i], sketch(texts[i]).shape[0]), i


def test_words_that_share_a_place_of_the_cache_stay_apart() -> None:
    letters = "abcdefghijklmnopqrst"
    crowd = [f"{a}{b}{c}x" for a in letters for b in letters for c in letters]  # 8,000 words, 4,096 places
    rows = [" ".join(crowd[i : i + 8]) for i in range(0, len(crowd), 8)]
    made = sketch(*rows)
    assert len(np.unique(made.hashes[:, 1])) == len(rows)
    for i in (500, 998, 999):
        assert np.array_equal(made.hashes[i], sketch(rows[i]).hashes[0])


def test_dequantise() -> None:
    assert dequantise("mean_word_chars", np.array([48], np.uint8))[0] == 3
    assert dequantise("words_per_sentence", np.array([64], np.uint8))[0] == 3
    assert abs(dequantise("log_chars", np.array([120], np.uint8))[0] - 1023) < 1e-6
    assert dequantise("has_url", np.array([255], np.uint8))[0] == 1
    with pytest.raises(KeyError, match="log_chars"):
        dequantise("nothing", np.zeros(1, np.uint8))
