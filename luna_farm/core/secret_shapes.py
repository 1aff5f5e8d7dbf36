"""Which texts are secrets, wherever they stand: the exact shapes of credentials.

Each shape has the prefix, alphabet and length that its issuer gives it. Facts compared with the published
rules of gitleaks and detect-secrets (2025). A prompt, the name of a LoRA and a file name are never a secret,
whatever they begin with: see `_part_of_a_name` and `wordlike`.

Pure. This module must never keep or log a secret.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from typing import NamedTuple

from luna_farm.core.secrets import (
    FILE,
    MASK,
    Test,
    anything,
    credential,
    is_secret,
    long_value,
    named,
    wordlike,
)


class Shape(NamedTuple):
    """What one kind of credential looks like.

    `marks`: lower-case texts, one of which stands in every text that has the shape. `pattern`: the secret is
    its group `s`, or all of it. `test`: what the secret must pass besides.
    """

    marks: tuple[str, ...]
    pattern: re.Pattern[str]
    test: Test | None = None


def _shape(marks: str, pattern: str, test: Test | None = None) -> Shape:
    return Shape(tuple(marks.split()), re.compile(pattern, re.ASCII), test)


def _random(text: str) -> bool:
    """Whether a prefixed key is no name: it has a long run without separators that is not made of words."""
    run = max(re.split(r"[^A-Za-z0-9]+", text), key=len)
    return len(run) >= 32 or (len(run) >= 16 and not wordlike(run)) or (len(run) >= 8 and not wordlike(text))


def _mixed(text: str) -> bool:
    return _random(text) or all(re.search(kind, text) for kind in ("[a-z]", "[A-Z]", "[0-9]"))


def _basic(text: str) -> bool:
    try:
        plain = base64.b64decode(text + "=" * (-len(text) % 4), validate=True).decode("utf-8")
    except (binascii.Error, ValueError):
        return False
    return ":" in plain and plain.isprintable()


def _userinfo(text: str) -> bool:
    user, _, password = text.partition(":")
    return (
        bool(password) and (bool(user) or long_value(password)) and not re.match(r"\d{1,5}(?:/|$)", password)
    )


_B = r"(?<![A-Za-z0-9_-])"  # no credential begins in the middle of a word
_E = r"(?![A-Za-z0-9_-])"
# Keys of letters and digits alone: such stretches stand between the "+" and "/" of every image in base64.
_ALONE, _ENDS = r"(?<![A-Za-z0-9_+/-])", r"(?![A-Za-z0-9_+/=-])"

SHAPES: tuple[Shape, ...] = (
    # AI services
    _shape("sk-", _B + r"sk-[A-Za-z0-9_-]{20,250}", _random),  # OpenAI, Anthropic, DeepSeek, OpenRouter, ...
    _shape("sk_", _B + r"sk_[0-9a-f]{40,64}" + _E),  # ElevenLabs
    _shape("hf_ api_org_", _B + r"(?:hf|api_org)_[A-Za-z0-9]{30,40}" + _E, _random),
    _shape(
        "gsk_ tsk_ msy_ csk- pcsk_", _B + r"(?:gsk_|tsk_|msy_|csk-|pcsk_)[A-Za-z0-9_-]{32,90}" + _E, _random
    ),
    _shape(
        "xai- pplx- jina_ tvly-", _B + r"(?:xai-|pplx-|jina_|tvly-(?:dev-|prod-)?)[A-Za-z0-9]{32,90}" + _E
    ),
    _shape("r8_", _B + r"r8_[A-Za-z0-9]{37}" + _E),
    _shape("fw_ rpa_ e2b_", _B + r"(?:fw_|rpa_|e2b_)[A-Za-z0-9]{22,60}" + _E, _mixed),
    _shape("comfyui- luma-", _B + r"(?:comfyui-[0-9a-f]{64}|luma-[0-9a-f-]{36,80})" + _E),
    _shape("nvapi-", _B + r"nvapi-[\w-]{40,90}"),
    _shape("key_", _B + r"key_[0-9a-f]{64,128}" + _E),  # Runway
    _shape("fpsx", _B + r"FPSX[0-9a-f]{32}" + _E),
    _shape("lsv2_ wandb_v1_", _B + r"(?:lsv2_(?:pt|sk)_[0-9a-f]{32}_[0-9a-f]{10}|wandb_v1_\w{40,90})"),
    _shape(":", _B + r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}:[0-9a-f]{32}" + _E),  # fal
    # Clouds and code
    _shape("akia asia abia acca a3t", _B + r"(?:AKIA|ASIA|ABIA|ACCA|A3T[A-Z0-9])[A-Z0-9]{16}" + _E),
    _shape(
        "absk bedrock-api-key-", _B + r"(?:ABSK[A-Za-z0-9+/]{60,270}={0,2}|bedrock-api-key-[\w+/=-]{24,})"
    ),
    _shape("aiza", _B + r"AIza[\w-]{35}" + _E),
    _shape("ya29. gocspx-", _B + r"(?:ya29\.[\w-]{20,300}|GOCSPX-[\w-]{28})" + _E),
    _shape("1//0", r"(?<![\w/])1//0[\w-]{40,120}"),
    _shape(
        "accountkey= sharedaccesskey=", r"(?i:AccountKey|SharedAccessKey)=(?P<s>[A-Za-z0-9+/]{40,88}={0,2})"
    ),
    _shape("q~", r"(?<![\w~.-])[\w~.]{3}\dQ~[\w~.-]{31,34}(?![\w~.-])"),  # Entra ID
    _shape("ghp_ gho_ ghu_ ghs_ ghr_", _B + r"gh[pousr]_\w{36,255}" + _E, _random),
    _shape("github_pat_", _B + r"github_pat_\w{22,90}", _random),
    _shape(
        "glpat- gldt- glrt- glptt- gloas- glcbt- glffct- glft- glimt- glagent- glsoat- gr1348941",
        _B + r"(?:gl(?:pat|dt|rt|ptt|oas|cbt|ffct|ft|imt|agent|soat)-[\w.-]{20,300}|GR1348941[\w-]{20})",
    ),
    _shape("npm_", _B + r"npm_[A-Za-z0-9]{36}" + _E),
    _shape("pypi-", _B + r"pypi-AgE[\w-]{50,1000}"),
    _shape("dckr_", _B + r"dckr_(?:pat|oat)_[\w-]{27,60}"),
    _shape("dop_v1_ doo_v1_ dor_v1_", _B + r"do[por]_v1_[0-9a-f]{64}" + _E),
    _shape("dapi", _B + r"dapi[0-9a-f]{32}(?:-\d)?" + _E),
    _shape("hvs. hvb.", _B + r"hv[sb]\.[\w-]{24,300}"),
    _shape("ltai akid", _B + r"(?:LTAI[A-Za-z0-9]{16,24}|AKID[A-Za-z0-9]{32})" + _E),
    _shape("sbp_ sb_secret_", _B + r"(?:sbp_[0-9a-f]{40}|sb_secret_[\w-]{30,50})" + _E),
    _shape("pscale_", _B + r"pscale_(?:tkn|oauth|pw)_[\w=.-]{32,64}"),
    _shape(".atlasv1.", _B + r"[A-Za-z0-9]{14}\.atlasv1\.[\w=-]{60,70}"),
    _shape("age-secret-key-", r"AGE-SECRET-KEY-1[A-Z0-9]{58}"),
    _shape("a3-", _B + r"A3-[A-Z0-9]{6}-[A-Z0-9-]{11,13}(?:-[A-Z0-9]{5}){3}" + _E),  # 1Password
    _shape("ops_eyj eyjrijoi zxlk", _B + r"(?:ops_eyJ|eyJrIjoi|ZXlK)[A-Za-z0-9+/]{60,}={0,3}"),
    _shape("akcp cmvmd", _B + r"(?:AKCp[A-Za-z0-9]{69}|cmVmd[A-Za-z0-9]{59})" + _E),  # Artifactory
    _shape(
        ".acc_ .acc-",
        _B + r"[a-z]{2,8}_[a-z0-9]{5,30}\.[a-z0-9]{4,6}\.acc[_-][a-z0-9-]{10,32}\.[\w+/=-]{30,120}",
    ),
    _shape("v1.0-", _B + r"v1\.0-[0-9a-f]{24}-[0-9a-f]{146}" + _E),  # Cloudflare
    _shape("dt0c01.", _B + r"dt0c01\.[A-Za-z0-9]{24}\.[A-Za-z0-9]{64}" + _E),  # Dynatrace
    _shape("fo1_ fm1a_ fm1r_ fm2_", _B + r"(?:fo1_[\w-]{43}|fm(?:1[ar]|2)_[A-Za-z0-9+/]{80,}={0,3})"),  # Fly
    _shape("pat. sat.", _B + r"[ps]at\.[\w-]{22}\.[A-Za-z0-9]{24}\.[A-Za-z0-9]{20}" + _E),  # Harness
    _shape("sha256~", _B + r"sha256~[\w-]{43}" + _E),  # OpenShift
    _shape("t1. aqvn", _B + r"(?:t1\.[\w-]+=*\.[\w-]{86}=*|AQVN[\w-]{35,38})" + _E, _random),
    _shape("sgp_", _B + r"sgp_(?:(?:[0-9A-Fa-f]{16}|local)_)?[0-9A-Fa-f]{40}" + _E),  # Sourcegraph
    _shape(
        "clojars_ 4b1d pul- rubygems_ pnu_ ico- rdme_ squ_ sqp_ sqa_ s-s4t2",
        _B + r"(?:CLOJARS_[a-z0-9]{60}|4b1d[A-Za-z0-9]{38}|pul-[0-9a-f]{40}|rubygems_[0-9a-f]{48}"
        r"|pnu_[A-Za-z0-9]{36}|ico-[A-Za-z0-9]{32}|rdme_[a-z0-9]{70}|sq[upa]_[\w=-]{40}|s-s4t2(?:ud|af)-[0-9a-f]{64})"
        + _E,
        _random,
    ),
    _shape("_mmk", _B + r"[A-Za-z0-9]{6}_[A-Za-z0-9]{29}_mmk" + _E),  # MaxMind
    # Messages, payments, tools
    _shape(
        "xox",
        _B + r"xox[abeoprs](?:\.xox[bp])?-[A-Za-z0-9-]{10,250}",
        lambda text: any(map(str.isdigit, text)),
    ),
    _shape("xapp-", _B + r"xapp-\d-[A-Z0-9]+-\d+-[a-z0-9]+"),
    _shape("_live_ _test_ _prod_", _B + r"(?:sk|rk|pk)_(?:live|test|prod)_[A-Za-z0-9]{10,247}" + _E, _mixed),
    _shape("whsec_", _B + r"whsec_[A-Za-z0-9+/]{32,64}={0,2}"),
    _shape("sg.", _B + r"SG\.[\w-]{16,32}\.[\w-]{16,64}" + _E),
    _shape("sk", _B + r"SK[0-9A-Fa-f]{32}" + _E),  # Twilio
    _shape("live_ test_ duffel_", _B + r"(?:duffel_)?(?:live|test)_(?:pub_)?[\w=-]{31,43}" + _E, _random),
    _shape(
        "ezak eztk flw", _B + r"(?:EZ[AT]K[a-z0-9]{54}|FLW(?:SEC|PUB)K(?:_TEST)?-[0-9a-h]{12,32}(?:-X)?)" + _E
    ),
    _shape(
        "shippo_ access-", _B + r"(?:shippo_(?:live|test)_[0-9A-Fa-f]{40}|access-\w{4,12}-[0-9a-f-]{36})" + _E
    ),
    _shape("eaa", _ALONE + r"EAA[A-Za-z0-9]{90,400}" + _ENDS),  # Meta
    _shape("aaaaaaaaaaaaaaaaaaaaaa", _ALONE + r"A{20,24}(?!A)[A-Za-z0-9%]{60,120}" + _ENDS),  # Twitter
    _shape("pk.", _B + r"pk\.[A-Za-z0-9]{50,120}\.[\w-]{22}" + _E),  # Mapbox
    _shape("key-", _B + r"(?:pub)?key-[0-9a-f]{32}" + _E),  # Mailgun
    _shape("api-", _B + r"API-[A-Z0-9]{26}" + _E, _random),  # Octopus
    _shape("nrjs- nrii-", _B + r"(?:NRJS-[0-9a-f]{19}|NRII-[A-Za-z0-9-]{32})" + _E),
    _shape(
        "tfp_ sm_ p8e- fio-u- dnkey- tk-us-",
        _B + r"(?:tfp_[\w.=-]{59}|sm_[pas]at_[A-Za-z0-9]{16}|p8e-[A-Za-z0-9]{32}|fio-u-[\w=-]{64}"
        r"|dnkey-[\w=-]{26}-[\w=-]{52}|tk-us-[\w-]{48})" + _E,
        _random,
    ),
    _shape(":", r"(?<!\d)\d{8,10}:(?:AA[\w-]{32,34}|[\w-]{35})" + _E, _mixed),  # Telegram
    _shape(".", _B + r"[MNO][A-Za-z0-9_-]{23,27}\.[\w-]{6,7}\.[\w-]{27,40}" + _E),  # Discord
    _shape("ntn_ secret_", _B + r"(?:ntn_[A-Za-z0-9]{40,50}|secret_[A-Za-z0-9]{43})" + _E),
    _shape(
        "figd_ lin_api_ shpat_ shpca_ shppa_ shpss_ pmak-",
        _B + r"(?:figd_|lin_api_|shp(?:at|ca|pa|ss)_|PMAK-)[\w-]{32,64}",
    ),
    _shape(
        "atatt3 sntryu_ sntrys_ glsa_ glc_", _B + r"(?:ATATT3|sntry[us]_|glsa_|glc_)[\w+/=-]{32,400}", _random
    ),
    _shape("eaaa sq0 nrak- hrku-", _B + r"(?:EAAA|sq0(?:atp|csp)-|NRAK-|HRKU-)[\w-]{22,64}" + _E, _random),
    _shape(
        "xkeysib- dp.pt. pat",
        _B + r"(?:xkeysib-[0-9a-f]{64}-\w{16}|dp\.pt\.\w{40,44}|pat\w{14}\.[0-9a-f]{64})",
    ),
    _shape("-us", _B + r"[0-9a-z]{32}-us\d{1,2}" + _E),  # Mailchimp
    # Forms that no single issuer has
    _shape("ey", _B + r"ey[A-Za-z0-9_-]{8,}\.ey[\w/-]{8,}(?:\.[\w/-]*=*)?"),  # JSON web token
    _shape(
        "private",
        r"-{4,5} ?BEGIN[ A-Z0-9]{0,40}PRIVATE KEY(?: BLOCK)? ?-{4,5}"
        r"(?:[\s\S]*?-{4,5} ?END[ A-Z0-9]{0,40}-{4,5}|[\s\S]*)",
    ),
    _shape("putty-user-key-file-", r"PuTTY-User-Key-File-\d[\s\S]*"),
    _shape("bearer", r"(?i:\bbearer)(?:\s+|%20|\+)(?P<s>[\w.~+/=-]{12,})", _random),
    _shape(
        "authorization",
        r"(?i:authorization)[\\\"']{0,8}\s{0,9}[:=]\s{0,9}[\\\"']{0,8}(?:[A-Za-z]+\s+)?(?P<s>[\w.~+/=-]{8,})",
        lambda text: not wordlike(text),
    ),
    _shape("basic", r"(?i:\bbasic)(?:\s+|%20)(?P<s>[A-Za-z0-9+/]{6,}={0,2})", _basic),
    _shape(
        "://",
        r"(?<=://)(?P<s>[^\s/:@\"'<>]{0,200}:[^\s\"'<>]{1,200})@(?=[\w.\[\]-]+(?::\d+)?(?:[/?#\s\"',;)]|$))",
        _userinfo,
    ),
    _shape("curl", r"\bcurl\b.{0,400}?\s(?:-u|--user)[\s=]{0,3}[\"']?(?P<s>[^\s:\"']+:[^\s\"']+)"),
    _shape(
        "sshpass docker podman mysql",
        r"\b(?:sshpass|(?:docker|podman)\s+login|mysql\w*)\b.{0,200}?\s-p\s?[\"']?(?P<s>[^\s\"']{4,})",
        anything,
    ),
    _shape("hooks.slack.com/", r"hooks\.slack\.com/(?:services|workflows|triggers)/(?P<s>[\w/+-]{16,})"),
    _shape("/webhooks/", r"discord(?:app)?\.com/api/(?:v\d+/)?webhooks/(?P<s>\d{16,20}/[\w-]{20,})"),
    _shape("webhook.office.com", r"webhook\.office\.com/webhookb2/(?P<s>[\w@/-]{36,})"),
    _shape("hooks.zapier.com", r"hooks\.zapier\.com/hooks/catch/(?P<s>[\w/-]{6,})"),
    _shape("maker.ifttt.com", r"maker\.ifttt\.com/trigger/[\w-]+/(?:json/)?with/key/(?P<s>[\w-]{10,})"),
    _shape(".make.com hook.integromat.com", r"hook\.(?:[\w-]+\.make|make|integromat)\.com/(?P<s>\w{20,})"),
    _shape("/bot/v2/hook/", r"/bot/v2/hook/(?P<s>[\w-]{20,})"),
)

_MARKED = [(mark, shape) for shape in SHAPES for mark in shape.marks]


def _any_of(words: Iterable[str]) -> str:
    """Return a pattern that finds any of some words; what they begin with in common is looked for once."""
    rest: dict[str, list[str]] = {}
    for word in words:
        if not word:
            return ""
        rest.setdefault(word[0], []).append(word[1:])
    return "(?:" + "|".join(re.escape(first) + _any_of(more) for first, more in rest.items()) + ")"


_ANY_MARK = re.compile(_any_of(mark for mark, _ in _MARKED))
"""Most names hold none, which this finds in a tenth of the time that looking for each takes."""

# `name: value`, `name=value` and `"name": "value"` in a text: headers, addresses, JSON (in JSON), shell.
_ASSIGNED = re.compile(
    r"""(?:\\{0,8}(?P<quoted>["']))?(?<![A-Za-z0-9_])(?P<name>[A-Za-z_][\w.-]{0,60})(?(quoted)\\{0,8}["'])\]?
        \s{0,3}(?P<by>=>|:=|[:=])\s{0,3}
        (?:\\{0,8}(?P<mark>["'])(?P<text>(?:(?!\\{0,8}(?P=mark))[^\n]){1,500})
         |(?P<plain>[^\s"'&,;<>(){}|\]\[\\]{4,500}))""",
    re.VERBOSE | re.ASCII,
)
_NAMED, _WHOLE = r"(?P<name>[A-Za-z][\w .:-]{1,60})", r"(?P<s>[^\s\"'`\\<>]{8,500})"
_QUOTE = r"\\{0,8}[\"']"
_BESIDE = (
    ((" -",), re.compile(r"(?<![\w-])--?(?P<name>[A-Za-z][\w-]{1,60})\s{1,3}[\"']?" + _WHOLE)),
    (
        ('["', "['", '("', "('", '[\\"', '(\\"'),
        re.compile(rf"[\[(]\s{{0,3}}{_QUOTE}{_NAMED}{_QUOTE}\s{{0,3}},\s{{0,3}}{_QUOTE}{_WHOLE}"),
    ),
    (("</",), re.compile(rf"<{_NAMED}>\s{{0,3}}{_WHOLE}\s{{0,3}}</")),
    (
        ("value",),
        re.compile(rf"(?:key|name)\s?=\s?{_QUOTE}{_NAMED}{_QUOTE}\s{{1,3}}value\s?=\s?{_QUOTE}{_WHOLE}"),
    ),
    (
        ("key ", "token ", "password ", "passphrase "),
        re.compile(
            r"(?i:\b(?P<name>(?:api|access|secret|auth)[ _-]?(?:key|token)|password|passphrase)(?:\s+is)?"
            r"\s{0,3}[:|]?\s{1,3})(?P<s>[\w.~+/=-]{16,500})"
        ),
    ),
)
"""Texts, one of which must be there, and the pattern: `--api-key VALUE`, `["X-Api-Key", "VALUE"]` and calls,
`<api_key>VALUE</api_key>`, `key="ApiKey" value="VALUE"`, "API key is VALUE"."""
_HINT = re.compile(
    "key|token|secret|pass|auth|cookie|cred|sig|pwd|pw|jwt|bearer|session|sid|webhook|pat|otp|string|personal|code"
    "|hmac|ticket|csrf"
)
_QUERY_NAMES = ("key", "code", "k")  # say nothing elsewhere
_IN_TAG = re.compile(r"(?:<(?:lora|lyco|hypernet|lbw)[:\w]*:[^<>]*|embedding:\S*)$", re.IGNORECASE)


def shapes_in(document: str) -> tuple[Shape, ...]:
    """Return the shapes that a text may hold: a quick look that errs on the side of too many."""
    lower = document.lower()
    if not _ANY_MARK.search(lower):
        return ()
    return tuple(dict.fromkeys([shape for mark, shape in _MARKED if mark in lower]))


def mask(text: str, shapes: Iterable[Shape] | None = None) -> tuple[str, int]:
    """Return a text with its secrets masked, and their number. `shapes`: those to look for, None for all."""
    lower, found = text.lower(), 0
    if shapes is None:
        possible = shapes_in(text)
    else:
        possible = tuple(shape for shape in shapes if any(mark in lower for mark in shape.marks))
    for shape in possible:
        text, count = _cut(shape.pattern, text, shape.test)
        found += count
    if (":" in text or "=" in text) and _HINT.search(lower):
        text, count = _cut(_ASSIGNED, text, None)
        found += count
    if _HINT.search(lower):
        for marks, pattern in _BESIDE:
            if any(mark in lower for mark in marks):
                text, count = _cut(pattern, text, None)
                found += count
    return text, found


def _cut(pattern: re.Pattern[str], text: str, test: Test | None) -> tuple[str, int]:
    """Replace the secrets that `pattern` finds."""
    parts, done, at, found = [], 0, 0, 0
    while match := pattern.search(text, at):
        start, end = _place(match)
        value = text[start:end]
        if not value or MASK in value or (test and not test(value)) or _part_of_a_name(text, start, end):
            # What follows a name may hold another: "https://...?key=".
            at = match.end("name" if "name" in pattern.groupindex else 0)
            continue
        parts += [text[done:start], MASK]
        done = at = end
        found += 1
    return "".join((*parts, text[done:])), found


def _place(match: re.Match[str]) -> tuple[int, int]:
    """Return where the secret stands in what a pattern found, an empty place where it is none."""
    if match.re is _ASSIGNED:
        return _assigned(match)
    if "name" in match.re.groupindex:
        secret = is_secret(match["name"], match["s"]) and long_value(match["s"])
        return match.span("s") if secret else (0, 0)
    return match.span("s" if match.re.groupindex else 0)


def _assigned(match: re.Match[str]) -> tuple[int, int]:
    """Return where the secret of `name: value` stands, an empty place where it is none."""
    group = "text" if match["mark"] else "plain"
    name, value = match["name"], match[group]
    if match["quoted"] and match["mark"]:
        secret = is_secret(name, value)
    elif (
        match["by"] == "="
        and match.string[max(match.start() - 1, 0)] in "?&"
        and name.lower() in _QUERY_NAMES
    ):
        secret = credential(value)
    else:  # prose says "password: swordfish", too
        secret = is_secret(name, value) and (
            long_value(value) or (match["by"] == "=" and named(name) is anything)
        )
    return match.span(group) if secret else (0, 0)


def _part_of_a_name(text: str, start: int, end: int) -> bool:
    """Whether a place in a text belongs to the name of a file, of a LoRA or of an embedding."""
    return FILE.match(text, end) is not None or _IN_TAG.search(text[max(0, start - 120) : start]) is not None
