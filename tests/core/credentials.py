"""Credentials of the right shapes, made up anew each time, and the ways in which they get into a workflow.

Put together here from prefix, alphabet and length, so that no scanner of repositories takes them for real.
"""

from __future__ import annotations

import base64
import json
import random
import string
from collections.abc import Callable

LETTERS, DIGITS, UPPER = string.ascii_letters, string.digits, string.ascii_uppercase + string.digits
ALNUM, HEX, B64 = LETTERS + DIGITS, "0123456789abcdef", LETTERS + DIGITS + "+/"
URL = ALNUM + "-_"

# kind: prefix, alphabet, length, suffix
PREFIXED = {
    "OpenAI": ("sk-", ALNUM, 48, ""),
    "OpenAI project": ("sk-proj-", URL, 74, "T3BlbkFJ" + "aB3dE6gH9j" * 6),
    "OpenAI without digits": ("sk-", LETTERS, 48, ""),
    "lower case": ("sk-", string.ascii_lowercase, 48, ""),
    "Anthropic": ("sk-ant-api03-", URL, 93, "AA"),
    "OpenRouter": ("sk-or-v1-", HEX, 64, ""),
    "DeepSeek": ("sk-", HEX, 32, ""),
    "ElevenLabs": ("sk_", HEX, 48, ""),
    "Hugging Face": ("hf_", LETTERS, 34, ""),
    "Groq": ("gsk_", ALNUM, 52, ""),
    "xAI": ("xai-", ALNUM, 80, ""),
    "Perplexity": ("pplx-", ALNUM, 48, ""),
    "Replicate": ("r8_", ALNUM, 37, ""),
    "Fireworks": ("fw_", ALNUM, 24, ""),
    "RunPod": ("rpa_", UPPER, 46, ""),
    "ComfyUI": ("comfyui-", HEX, 64, ""),
    "NVIDIA": ("nvapi-", URL, 64, ""),
    "Runway": ("key_", HEX, 128, ""),
    "Freepik": ("FPSX", HEX, 32, ""),
    "Tripo": ("tsk_", URL, 44, ""),
    "Meshy": ("msy_", ALNUM, 40, ""),
    "Jina": ("jina_", ALNUM, 60, ""),
    "Tavily": ("tvly-dev-", ALNUM, 32, ""),
    "LangSmith": ("lsv2_pt_", HEX, 32, "_0123456789"),
    "AWS": ("AKIA", UPPER, 16, ""),
    "AWS temporary": ("ASIA", UPPER, 16, ""),
    "Bedrock": ("ABSK", B64, 110, "=="),
    "Google": ("AIza", URL, 35, ""),
    "Google OAuth": ("ya29.", URL, 120, ""),
    "Google client": ("GOCSPX-", URL, 28, ""),
    "GitHub": ("ghp_", ALNUM, 36, ""),
    "GitHub server": ("ghs_", ALNUM, 36, ""),
    "GitHub fine-grained": ("github_pat_", ALNUM + "_", 82, ""),
    "GitLab": ("glpat-", URL, 20, ""),
    "npm": ("npm_", ALNUM, 36, ""),
    "PyPI": ("pypi-AgEIcHlwaS5vcmc", URL, 70, ""),
    "Docker": ("dckr_pat_", URL, 27, ""),
    "DigitalOcean": ("dop_v1_", HEX, 64, ""),
    "Databricks": ("dapi", HEX, 32, ""),
    "Vault": ("hvs.", URL, 95, ""),
    "Alibaba": ("LTAI", ALNUM, 20, ""),
    "Supabase": ("sbp_", HEX, 40, ""),
    "Slack": ("xoxb-1234567890-1234567890-", ALNUM, 24, ""),
    "Slack app": ("xapp-1-A0123456789-1234567890-", HEX, 64, ""),
    "Stripe": ("sk_live_", ALNUM, 24, ""),
    "Stripe test": ("sk_test_", ALNUM, 99, ""),
    "Stripe restricted": ("rk_live_", ALNUM, 99, ""),
    "Stripe webhook": ("whsec_", ALNUM, 32, ""),
    "SendGrid": ("SG.", URL, 22, "." + "aB3_-" * 8 + "xyz"),
    "Twilio": ("SK", HEX, 32, ""),
    "Telegram": ("123456789:AA", URL, 33, ""),
    "Notion": ("ntn_", ALNUM, 46, ""),
    "Figma": ("figd_", URL, 40, ""),
    "Linear": ("lin_api_", ALNUM, 40, ""),
    "Shopify": ("shpat_", HEX, 32, ""),
    "Grafana": ("glsa_", ALNUM, 32, "_0123abcd"),
    "Mailchimp": ("", HEX, 32, "-us12"),
    "GitLab feed": ("glft-", URL, 20, ""),
    "GitLab runner": ("GR1348941", URL, 20, ""),
    "1Password": ("A3-ABC123-ABCDEF-", UPPER, 5, "-AB12C-DE34F-GH56I"),
    "1Password service": ("ops_eyJ", B64, 250, ""),
    "Artifactory": ("AKCp", ALNUM, 69, ""),
    "Clojars": ("CLOJARS_", string.ascii_lowercase + DIGITS, 60, ""),
    "Cloudflare origin": ("v1.0-0123456789abcdef01234567-", HEX, 146, ""),
    "Dynatrace": ("dt0c01.ABCDEFGH2345678901234567.", UPPER, 64, ""),
    "EasyPost": ("EZAK", string.ascii_lowercase + DIGITS, 54, ""),
    "Flutterwave": ("FLWSECK_TEST-", HEX, 32, "-X"),
    "Fly": ("fm2_", B64, 120, ""),
    "Harness": ("pat.abcdefghijklmnopqrstu1.ABCDEFGHIJKLMNOPQRSTUVW1.", ALNUM, 20, ""),
    "Infracost": ("ico-", ALNUM, 32, ""),
    "Mailgun": ("key-", HEX, 32, ""),
    "Mapbox": ("pk.", string.ascii_lowercase + DIGITS, 60, ".ab3cd4ef5gh6ij7kl8mn9o"),
    "MaxMind": ("Ab1Cd2_", ALNUM, 29, "_mmk"),
    "Meta": ("EAA", ALNUM, 120, ""),
    "Octopus": ("API-", UPPER, 26, ""),
    "OpenShift": ("sha256~", URL, 43, ""),
    "Plaid": ("access-production-", HEX, 8, "-1234-5678-9abc-def012345678"),
    "Prefect": ("pnu_", ALNUM, 36, ""),
    "Pulumi": ("pul-", HEX, 40, ""),
    "RubyGems": ("rubygems_", HEX, 48, ""),
    "Shippo": ("shippo_live_", HEX, 40, ""),
    "Shopify app": ("shpca_", HEX, 32, ""),
    "Sonar": ("squ_", HEX, 40, ""),
    "Sourcegraph": ("sgp_", HEX, 40, ""),
    "Twitter": ("A" * 22, ALNUM, 90, ""),
    "Typeform": ("tfp_", ALNUM, 59, ""),
    "Yandex": ("AQVN", URL, 36, ""),
    "fal": ("01234567-89ab-cdef-0123-456789abcdef:", HEX, 32, ""),
}

# Fields that hold a key without a shape of its own.
_FIELDS = """
    api_key apiKey API-KEY openai_api_key api_key_comfy_org auth_token_comfy_org civitai_key openai_key
    fal_key civitai_token token hf_token api_token_1 apiToken2 access_token refreshToken session_token
    password Password db_password_2 passwd pass passphrase pwd secret client_secret
    aws_secret_access_key aws_secret_key private_key Authorization auth credentials access_key x-api-key
    X-Goog-Api-Key bearer jwt signing_key subscription_key OPENAIKEY runwayKey kling_secret_key
    account_key auth_key contraseña mot_de_passe 密码 API密钥 访问令牌 パスワード пароль
"""
FIELDS = [*_FIELDS.split(), "auth_header", "token_value", "api_key_text", "key_openai", "token_civitai"]

_URL_PARAMETERS = """
    key apikey api_key access_token token sig X-Amz-Signature X-Amz-Security-Token signature client_secret
    X-Goog-Signature
"""
URL_PARAMETERS = _URL_PARAMETERS.split()

WEBHOOKS: dict[str, Callable[[Callable[[str, int], str]], tuple[str, str]]] = {
    "Slack": lambda r: (
        "https://hooks.slack.com/services/",
        f"T{r(UPPER, 10)}/B{r(UPPER, 10)}/{r(ALNUM, 24)}",
    ),
    "Discord": lambda r: ("https://discord.com/api/webhooks/", f"{r(DIGITS, 18)}/{r(URL, 68)}"),
    "Discord old": lambda r: ("https://discordapp.com/api/v9/webhooks/", f"{r(DIGITS, 19)}/{r(URL, 68)}"),
    "Zapier": lambda r: ("https://hooks.zapier.com/hooks/catch/", f"{r(DIGITS, 8)}/{r(ALNUM, 7)}"),
    "IFTTT": lambda r: ("https://maker.ifttt.com/trigger/done/with/key/", r(URL, 22)),
    "Make": lambda r: ("https://hook.eu1.make.com/", r(ALNUM, 32)),
    "Telegram": lambda r: ("https://api.telegram.org/bot", f"123456789:AA{r(URL, 33)}"),
    "Feishu": lambda r: ("https://open.feishu.cn/open-apis/bot/v2/hook/", r(HEX, 32)),
    "Teams": lambda r: (
        "https://x.webhook.office.com/webhookb2/",
        f"{r(HEX, 36)}@{r(HEX, 36)}/IncomingWebhook/{r(HEX, 32)}",
    ),
}


def credentials(rng: random.Random) -> list[tuple[str, str, str]]:
    """Return (kind, text with the secret in it, the secret)."""

    def some(alphabet: str, length: int) -> str:
        return "".join(rng.choice(alphabet) for _ in range(length))

    made = []
    for kind, (prefix, alphabet, length, suffix) in PREFIXED.items():
        key = (
            prefix
            + some(alphabet, length - 1)
            + rng.choice(ALNUM if alphabet in (URL, B64) else alphabet)
            + suffix
        )
        made += [(kind, key, key), (f"{kind} in a sentence", f"use {key}, please", key)]
        made.append((f"{kind} in JSON", json.dumps({"note": key}), key))
    opaque = some(HEX, 40)
    plain = f"me:{some(ALNUM, 12)}"
    basic = base64.b64encode(plain.encode()).decode()
    made += [
        ("Bearer", f"Authorization: Bearer {opaque}", opaque),
        ("bearer", f"authorization: bearer {opaque}", opaque),
        ("bearer alone", f"bearer {opaque}", opaque),
        ("Token header", f"Authorization: Token {opaque}", opaque),
        ("Basic", f"Basic {basic}", basic),
        ("basic header", f"authorization: basic {basic}", basic),
        ("X-Api-Key", f"X-Api-Key: {opaque}", opaque),
        ("Cookie", f"Cookie: sessionid={opaque}; theme=dark", opaque),
        ("shell", f"export OPENAI_API_KEY={opaque}", opaque),
        ("option of a command", f"gen --api-key {opaque} --steps 20", opaque),
        ("quoted option", f"gen -v --token '{opaque}'", opaque),
        ("pairs in JSON in a text", json.dumps({"h": json.dumps([["X-Api-Key", opaque]])}), opaque),
        ("call in a text", f"request.setRequestHeader('x-api-key', '{opaque}')", opaque),
        ("XML", f"<config><api_key>{opaque}</api_key></config>", opaque),
        ("XML attribute", f'<add key="ApiKey" value="{opaque}"/>', opaque),
        ("prose", f"my API key is {opaque}", opaque),
        ("table", f"api_key | {opaque}", opaque),
        ("docker login", f"docker login -u me -p {opaque}", opaque),
        ("sshpass", f"sshpass -p 'Kx8#{opaque[:6]}' ssh me@host", opaque[:6]),
        ("hmac", f"https://example.org/x?hmac={opaque}", opaque),
        ("password without a user", f"redis://:{opaque}@cache:6379/0", opaque),
        ("JSON in a text", json.dumps({"api_key": opaque, "n": 1}), opaque),
        ("JSON in JSON in a text", json.dumps({"body": json.dumps({"password": opaque})}), opaque),
        ("Python in a text", f"client = Client(api_key='{opaque}')", opaque),
        ("JSON web token", f"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.{some(URL, 43)}", "eyJzdWIiOiIxIn0"),
        ("user:password", f"https://me:{some(ALNUM, 8)}@example.org/x", "me:"),
        ("password with @", f"https://me:p@{opaque}@example.org/x", opaque),
        ("password with /", f"postgres://me:p/{opaque}@example.org:5432/x", opaque),
        ("Azure storage", f"AccountName=a;AccountKey={some(B64, 86)}==;x=y", "=="),
        ("PEM", f"-----BEGIN RSA PRIVATE KEY-----\n{opaque}\n-----END RSA PRIVATE KEY-----", opaque),
        ("Python environment", f'os.environ["OPENAI_API_KEY"] = "{opaque}"', opaque),
        (
            "SSH2",
            f"---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----\n{opaque}\n---- END SSH2 PRIVATE KEY ----",
            opaque,
        ),
        ("PuTTY", f"PuTTY-User-Key-File-3: ssh-ed25519\nPrivate-Lines: 1\n{opaque}\n", opaque),
        ("Telegram old", f"123456789:b{some(URL, 33)}9", "123456789:b"),
        ("PEM cut off", f"-----BEGIN PRIVATE KEY-----\n{opaque}", opaque),
        (
            "OpenSSH",
            f"-----BEGIN OPENSSH PRIVATE KEY-----\n{opaque}\n-----END OPENSSH PRIVATE KEY-----",
            opaque,
        ),
        (
            "PGP",
            f"-----BEGIN PGP PRIVATE KEY BLOCK-----\n{opaque}\n-----END PGP PRIVATE KEY BLOCK-----",
            opaque,
        ),
    ]
    for name in URL_PARAMETERS:
        value = some(HEX, 32)
        made.append((f"?{name}=", f"https://example.org/model?a=b&{name}={value}", value))
        made.append((f"?{name}= first", f"https://example.org/model?{name}={value}&a=b", value))
    for kind, make in WEBHOOKS.items():
        address, secret = make(some)
        made.append((f"{kind} webhook", f"post to {address}{secret} now", secret))
    return made


INNOCENT = [
    "a man at the beach --ar 16:9 --sref 1234567890 --key light --secret gardenparty --token ohwx-man-v2",
    "the password is swordfishandmackerel, api key | a lighthouse-on-the-cliff",
    "<token>beautiful-princess</token> ('key', 'light-and-shadow'), [\"token\", \"long-haired-princess\"]",
    "mysql -p, docker and whales",
    "ticket=train-to-the-seaside, hmac: a word, csrf",
    "-token beautiful-long-haired-princess",
    "redis://:6379",
    "<lora:sk_glossy_anime_style_v2:0.8>",
    "<lora:sk-AbC123dEf456GhI789jKl012mNo:0.8>, a cat",
    "sk_glossy_anime_style_v2.safetensors",
    "sk-glossy-anime-style-v2-final-highres-edition-3",
    "sk-a1B2c3D4e5F6g7H8i9J0.safetensors",
    "pk-monsters-and-their-trainers-v12-highres.safetensors",
    "rk_render_kit_2024_photorealistic_interior.ckpt",
    "sk_live_action_style_2024",
    "sk_test_photorealistic_portrait_v3",
    "hf_hyperdetailed_photorealistic_v12_pruned",
    "Ring Bearer photorealistic-hyperdetailed",
    "the bearer of the one-ring-to-rule-them-all-2024",
    "basic photorealistic portrait, basic lighting",
    "comfyui-workflow-templates-media-image",
    "task-list-with-many-words-in-it-1",
    "sk-learn-without-any-number-in-it",
    "a bearer of 1234567890123456",
    "https://example.org:8080/path",
    "https://example.org:8080/@user/a",
    "http://localhost:8188/view?filename=a@b.png&type=output",
    "https://medium.com/@someone/an-article",
    "https://civitai.com/models/123?modelVersionId=456&type=Model&format=SafeTensor",
    "realistic_hf_model_v12",
    "password: swordfish, a spy in a trench coat",
    "secret: the garden behind the wall",
    "the key: light from the left, token: of love",
    "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "01234567-89ab-cdef-0123-456789abcdef",
    "embedding:sk-AbC123dEf456GhI789jKl012mNo, masterpiece",
    "(masterpiece:1.2), (token:1.1), [key:light:0.5]",
    "qwen_image_edit_2511_fp8_e4m3fn_scaled.safetensors",
    "SK Hynix SK8 board, SKATE 1080p",
    "it accepts date tokens: `%year%`, `%month%2`, `%day%`",
    "AKIRA, ASIAN food, AIzawa sensei",
    '{"key": "C major", "token": "ohwx woman", "subject": "a bearer"}',
]
INNOCENT_FIELDS = {
    "signature_text": "Jane 2025",
    "auth_header": "X-Api-Key",
    "key_value": "C-major-4",
    "token_string": "ohwx man, sks dog",
    "placeholder_token": "my-cat-toy-01",
    "initializer_token": "toy",
    "instance_token": "ohwx-2024-person-01",
    "max_tokens": "4096",
    "cached_tokens": "a1b2c3d4e5f6a7b8",
    "token_normalization": "mean",
    "tokens": "77",
    "key": "C major",
    "hotkey": "ctrl+shift+4x9",
    "sort_key": "created-at-2024",
    "author": "me",
    "secretary": "me",
    "text": "a cat",
    "pass": "depth",
    "render_pass": "beauty",
    "bypass": "all-nodes-1",
    "auth": "none",
    "auth_type": "bearer-token-2024",
    "api_key_env": "OPENAI_API_KEY",
    "api_key": "${OPENAI_API_KEY}",
    "password": "",
    "cookie": "chocolate chip",
    "tokenizer": "t5xxl-v1_1",
    "keyframe": "12:ease-in-out-3",
    "unique_id": "9f86d081884c7d659a2f",
    "model_hash": "9f86d081884c7d659a2feaa0c55ad015",
    "session": "photo session 3",
    "signature": "Vincent",
    "compass": "north-12-west",
}
