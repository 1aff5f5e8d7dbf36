"""Which fields hold secrets, and what a secret looks like that stands in one.

`named` is the table of names (`api_key`, `civitai_key`, `cookie`): for each, how far the name alone is proof.
`secret_shapes` is the table of what needs no name. Both serve metadata and file names.

Pure. This module must never keep or log a secret.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

MASK = "***"
"""What stands in the place of a secret in metadata."""

Test = Callable[[str], bool]

# ---------------------------------------------------------------- values

_CHUNK = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")
_PARTS = re.compile(r"[^A-Za-z0-9]+")
_CONSONANTS = re.compile(r"[b-df-hj-np-tv-xz]{5}")
_VOWEL = re.compile(r"[aeiouy]")
_PLACEHOLDER = re.compile(
    r"\$\{?\w+\}?|%\w+%|\{\{.*\}\}|<[^>]*>|(?=.*_)[A-Z][A-Z0-9_]*(?:KEY|TOKEN|SECRET|PASSWORD|AUTH)[A-Z0-9_]*"
    r"|\W*|(?i:your|my|enter|insert|paste)[\W_].*(?:key|token|secret|password|here)[\W_]*",
    re.DOTALL,
)
_NO_SECRETS_TEXT = """
    none null true false yes no on off auto default basic bearer digest oauth oauth2 apikey api_key
    token password header enable enabled disable disabled fixed randomize increment decrement
"""
_NO_SECRETS = frozenset(_NO_SECRETS_TEXT.split())


def wordlike(text: str) -> bool:
    """Whether a text is made of words and small numbers, as names are: `my-cat-toy-01`, `PhotoReal_v2`."""
    words = total = 0
    for part in _PARTS.split(text):
        total += len(part)
        chunks = _CHUNK.findall(part)
        if len(part) >= 10 and sum(map(str.isdigit, chunks)) > 2:
            continue  # digits between letters all over
        for chunk in chunks:
            lower = chunk.lower()
            if chunk.isdigit():
                words += len(chunk) if len(chunk) <= 4 and len(part) - len(chunk) != 1 else 0
            elif (len(chunk) >= 3 or chunk == part) and len(chunk) <= 24:
                vowels = len(_VOWEL.findall(lower))
                spoken = vowels > 0.26 * len(chunk) if len(chunk) > 10 else vowels
                words += len(chunk) if spoken and not _CONSONANTS.search(lower) else 0
            elif lower == "v":
                words += 1
    return words >= 0.8 * total


def credential(text: str, shortest: int = 12) -> bool:
    """Whether a text looks like a credential: one word, no name, no path to a file."""
    if len(text) < shortest or re.search(r"\s", text) or is_file(text):
        return False
    return not wordlike(text) or re.search(r"\d.*[!#$%^&*=+~]|[!#$%^&*=+~].*\d", text) is not None


FILE = re.compile(
    r"\.(?:safetensors|ckpt|pth?|bin|gguf|sft|onnx|ya?ml|json|txt|png|jpe?g|webp|avif|jxl|tiff?|gif|mp[34]|wav|webm)"
    r"(?![A-Za-z0-9])",
    re.IGNORECASE,
)


def is_file(text: str) -> bool:
    """Whether a text ends like the name of a model or of a picture."""
    return re.fullmatch(rf".*{FILE.pattern}\W*", text, re.IGNORECASE | re.DOTALL) is not None


def anything(value: str) -> bool:
    """Whether a value says anything: no switch, no placeholder, no reference to a variable."""
    return value.strip().lower() not in _NO_SECRETS and not _PLACEHOLDER.fullmatch(value.strip())


def _password(value: str) -> bool:
    return anything(value) and len(value) >= 4 and not re.fullmatch(r"[A-Za-z ]+", value)


def _header(value: str) -> bool:
    return anything(value) and len(value) >= 4 and (not wordlike(value) or len(value) >= 16 or ":" in value)


def _cookie(value: str) -> bool:
    return re.search(r"\w=\S", value) is not None or credential(value)


def long_value(value: str) -> bool:
    """Whether a text of 8 characters and more looks like a credential."""
    return credential(value, 8)


# ---------------------------------------------------------------- names

_STRONG = (
    *("apikey", "authtoken", "accesstoken", "refreshtoken", "bearertoken", "sessiontoken", "apitoken"),
    *("idtoken", "bottoken", "usertoken", "csrftoken", "xsrftoken", "sastoken", "securitytoken", "hftoken"),
    *("password", "passwd", "passphrase", "passcode", "passwort", "clientsecret", "appsecret", "apisecret"),
    *("secretkey", "privatekey", "accesskey", "signingkey", "encryptionkey", "masterkey", "licensekey"),
    *("licencekey", "subscriptionkey", "accountkey", "storagekey", "authkey", "sessionkey", "webhooksecret"),
    *("servicekey", "deploykey", "sshkey", "adminkey", "authorization", "connectionstring", "personalaccess"),
)
# In other languages than English.
_FOREIGN: tuple[tuple[str, Test], ...] = (
    *((word, anything) for word in ("密码", "密碼", "口令", "密钥", "密鑰", "金鑰", "秘钥", "パスワード")),
    *((word, anything) for word in ("비밀번호", "пароль", "contrase\u00f1a", "contrasena", "mot de passe")),
    *((word, anything) for word in ("motdepasse", "kennwort", "wachtwoord", "senha", "has\u0142o")),
    *((word, long_value) for word in ("令牌", "トークン", "токен", "秘密鍵", "ключ api")),
)
_ISSUERS_TEXT = """
    civitai openai anthropic claude gemini google hf huggingface replicate fal falai stability
    stabilityai bfl flux luma kling runway minimax ideogram recraft tripo rodin meshy elevenlabs
    deepseek groq xai grok mistral cohere together fireworks openrouter perplexity pplx azure aws s3 gcp
    github gitlab slack discord telegram wandb comfy comfyui dropbox notion supabase stripe twilio
    sendgrid cloudflare nvidia nim deepl baidu aliyun alibaba qwen dashscope zhipu glm moonshot kimi
    volcengine ark doubao tencent siliconflow novita segmind leonardo krea runpod modal pinecone tavily
    serpapi serper bing openweather imgur imgbb freepik magnific topaz bria vidu pixverse pika hailuo
    suno udio assemblyai deepgram unsplash pexels giphy tinify figma
"""
_ISSUERS = frozenset(_ISSUERS_TEXT.split())
# What a token or a key is that is no secret, by the word before it.
_INNOCENT_TEXT = """
    placeholder initializer init instance class trigger special bos eos pad mask cls sep unk stop start
    end image style concept unique new added text vision audio max min num next prev first last input
    output prompt hot short sort dict json cache public primary foreign index map group row column frame
    chroma color colour object lookup data node state meta metadata video music musical attention attn
    query value search param config option item layer block translation locale site up down arrow any
    press partition pub luma_chroma space shift control enter tab alt escape delete i18n display label
    property dictionary line
"""
_INNOCENT = frozenset(_INNOCENT_TEXT.split())
_ENDS: tuple[tuple[str, Test], ...] = (
    ("secret", anything),
    ("secrets", anything),
    ("credential", anything),
    ("credentials", anything),
    ("creds", anything),
    ("pwd", anything),
    ("jwt", long_value),
    ("bearer", long_value),
    ("token", long_value),
    ("tokens", long_value),
)
_WORDS: dict[str, Test] = {
    "auth": _header,
    "authentication": _header,
    "pass": _password,
    "pw": _password,
    "cookie": _cookie,
    "cookies": _cookie,
    "session": credential,
    "sessionid": credential,
    "sid": credential,
    "sig": long_value,
    "signature": credential,
    "cred": long_value,
    "pat": long_value,
    "otp": _password,
    "csrf": credential,
    "hmac": credential,
    "ticket": credential,
    "webhook": lambda value: "://" in value,
}
# Names of what is said about a secret: where it is, what it is called.
_ABOUT = re.compile(
    r"(?:name|env|envvar|var|file|filename|path|type|url|mode|count|length|limit|header|hint|label|source|prefix"
    r"|provider|format|field|index|position|weight|strength)s?"
)
_FILLERS = frozenset({"value", "text", "string", "str", "input", "header"})
"""Say nothing more of a field than the words before them: what stands in it has to look like a credential."""
_NAME = re.compile(r"[\w .$#@/-]{1,80}")  # longer or with other signs, it is a text
_SPLIT = re.compile(r"[^A-Za-z0-9]+|(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Za-z])(?=\d)|(?<=\d)(?=[A-Za-z])")


@lru_cache(maxsize=4096)
def named(name: str) -> Test | None:
    """Return what a value under this name must pass to be a secret, None where the name says nothing.

    Case, separators and a number at the end do not matter: `apiKey`, `API-KEY` and `api_key_2` are one.
    """
    if not _NAME.fullmatch(name):
        return None
    lower = name.lower().replace("_", " ").replace("-", " ").strip()
    foreign = next((test for word, test in _FOREIGN if lower.startswith(word) or lower.endswith(word)), None)
    if foreign is not None:
        return foreign
    words = [word.lower() for word in _SPLIT.split(name) if word]
    while words and words[-1].isdigit():
        words.pop()
    if len(words) > 1 and words[-1] in _FILLERS:
        return credential if named(" ".join(words[:-1])) else None
    if not words or _ABOUT.fullmatch(words[-1]):
        return None
    if words[0] in ("key", "token", "tokens") and _ISSUERS & set(words[1:]):
        return credential
    joined = "".join(words)
    if joined.endswith(("keys", "passwords")):
        joined = joined[:-1]
    if any(word in joined for word in _STRONG):
        return anything
    before = words[-2] if len(words) > 1 else ""
    if before in _INNOCENT:
        return None
    if words[-1] in ("key", "keys", "token", "tokens") and _ISSUERS & set(words):
        return anything
    if joined.removesuffix("key") in _ISSUERS or joined.removesuffix("token") in _ISSUERS:
        return anything if joined not in _ISSUERS else None
    if words[-1] in _WORDS:
        return _WORDS[words[-1]]
    if words[-1] in ("key", "keys"):
        return credential if before else None
    if words[-1] == "tokens" and before:
        return None  # max_tokens and its like are numbers
    return next((test for end, test in _ENDS if joined.endswith(end)), None)


def is_secret(name: str, value: str) -> bool:
    """Whether `value` is a secret because it stands under `name`."""
    test = named(name)
    return test is not None and value != MASK and test(value)
