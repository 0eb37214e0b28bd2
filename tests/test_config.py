from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyminds import config
from manyminds.config import Config, describe, load, mask, reference
from manyminds.errors import ConfigError


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def read(
    tmp_path: Path,
    text: str,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
) -> Config:
    file = tmp_path / "some.toml"
    file.write_text(text, encoding="utf-8")
    return load(file, {"MANYMINDS_HOME": str(tmp_path), **(environ or {})}, flags or {})


def complaint(
    tmp_path: Path,
    text: str,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
) -> str:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text, environ, flags)
    return caught.value.message


# --- where values come from ------------------------------------------------------------------------


def test_nothing_is_needed(tmp_path: Path) -> None:
    found = load(None, {"MANYMINDS_HOME": str(tmp_path)}, {})
    assert found.file is None
    assert (found.server, found.local, found.policy) == (config.Server(), config.Local(), config.Policy())
    assert found.ledger.url == f"sqlite:///{tmp_path}/ledger.db"
    assert found.experts == ()
    assert set(found.origins.values()) == {"default", "environment MANYMINDS_HOME"}


def test_home_is_in_the_users_home_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load(None, {}, {}).home == tmp_path / ".manyminds"
    assert load(None, {"MANYMINDS_HOME": ""}, {}).home == tmp_path / ".manyminds"
    assert load(None, {"MANYMINDS_HOME": "~/x"}, {}).home == tmp_path / "x"


def test_flag_beats_environment_beats_file_beats_default(tmp_path: Path) -> None:
    text = "[server]\nport = 1\nhost = 'a'\nmax_body_mb = 3\n[policy]\ndefault = 'max'"
    environ = {"MANYMINDS_SERVER_PORT": "2", "MANYMINDS_SERVER_HOST": "b", "MANYMINDS_LOCAL_TIER": "full"}
    found = read(tmp_path, text, environ, {"server.port": 3, "local.tier": None})
    assert found.server == config.Server(host="b", port=3, max_body_mb=3)
    assert (found.policy.default, found.local.tier) == ("max", "full")
    assert found.origins["server.port"] == "flag"
    assert found.origins["server.host"] == "environment MANYMINDS_SERVER_HOST"
    assert found.origins["server.max_body_mb"] == f"file {tmp_path / 'some.toml'}"
    assert found.origins["policy.idle_s"] == "default"


def test_file_here_beats_file_at_home_and_neither_counts_beside_a_named_one(tmp_path: Path) -> None:
    environ = {"MANYMINDS_HOME": str(tmp_path)}
    (tmp_path / "manyminds.toml").write_text("[server]\nport = 1")
    assert load(None, environ, {}).server.port == 1
    Path("manyminds.toml").write_text("[server]\nport = 2")
    assert load(None, environ, {}).server.port == 2
    named = tmp_path / "named.toml"
    named.write_text("[server]\nhost = 'h'")
    found = load(named, environ, {})
    assert (found.server.port, found.server.host, found.file) == (8000, "h", named)


def test_experts_that_were_added_come_after_those_of_the_file(tmp_path: Path) -> None:
    mine = "[[expert]]\nname = 'mine'\nurl = 'http://a/v1'\n"
    added = tmp_path / config.ADDED
    added.write_text("[[expert]]\nname = 'added'\nurl = 'http://b/v1'\nkey_env = 'MANYMINDS_ITS_KEY'\n")
    found = read(tmp_path, mine, {"MANYMINDS_ITS_KEY": "secret"})
    assert [entry.name for entry in found.experts] == ["mine", "added"]
    assert found.origins["expert.mine.url"] == f"file {tmp_path / 'some.toml'}"
    assert found.origins["expert.added.url"] == f"file {added}"
    assert found.files == (tmp_path / "some.toml", added)
    nowhere = load(None, {"MANYMINDS_HOME": str(tmp_path)}, {})
    assert [entry.name for entry in nowhere.experts] == ["added"]
    assert nowhere.files == (Path.cwd() / "manyminds.toml", tmp_path / "manyminds.toml", added)
    added.write_text(mine)
    assert "`manyminds experts remove mine`" in complaint(tmp_path, mine)
    for wrong, why in (
        ("[server]\nport = 1", "experts and peers only, not server"),
        ("[[expert]]", "has no name"),
    ):
        added.write_text(wrong)
        assert why in complaint(tmp_path, "")


def test_the_environment_spells_numbers_truth_and_nothing(tmp_path: Path) -> None:
    environ = {
        "MANYMINDS_POLICY_BUDGET_USD": "0.05",
        "MANYMINDS_LEDGER_STORE_TEXT": "true",
        "MANYMINDS_LOCAL_MAX_MEMORY_GB": "",
    }
    found = read(tmp_path, "", environ)
    assert (found.policy.budget_usd, found.ledger.store_text, found.local.max_memory_gb) == (0.05, True, 4.0)


def test_other_peoples_variables_are_left_alone(tmp_path: Path) -> None:
    environ = {
        "MANYMINDS_PORT": "tcp://10.0.0.1:8000",  # what Kubernetes sets
        "MANYMINDS_SERVICE_HOST": "10.0.0.1",
        "MANYMINDS_MY_KEY": "secret",
        "SERVER_PORT": "x",
    }
    text = "[[expert]]\nname = 'a'\nurl = 'http://a/v1'\nkey_env = 'MANYMINDS_MY_KEY'"
    assert read(tmp_path, text, environ).server.port == 8000


def test_paths_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somebody")
    text = """
        [ledger]
        url = "sqlite:///sub/mine.db"
        [[expert]]
        name = "beside"
        kind = "local"
        path = "models/a.gguf"
        [[expert]]
        name = "home"
        kind = "recorded"
        path = "~/set"
    """
    found = read(tmp_path, text)
    assert found.ledger.url == f"sqlite:///{tmp_path}/sub/mine.db"
    assert [entry.path for entry in found.experts] == [f"{tmp_path}/models/a.gguf", "/somebody/set"]
    for url in ("sqlite:////tmp/x.db", "postgresql://me:hunter2@db/x?sslmode=require"):
        ledger = read(tmp_path, f'[ledger]\nurl = "{url}"\nretention_days = 30').ledger
        assert (ledger.url, ledger.retention_days) == (url, 30)


def test_an_expert_has_every_value_of_its_entry(tmp_path: Path) -> None:
    text = """
        [[expert]]
        name = "fast-coder"
        kind = "openai"
        url = "http://127.0.0.1:11434/v1"
        model = "qwen2.5-coder:7b"
        key_env = "CODER_KEY"
        price_in_usd_per_m = 0.1
        price_out_usd_per_m = 1
        source = "alice"
        skills = ["python", "code review"]
        offers = ["tools"]
        [[expert]]
        name = "plain"
        url = "https://example.org/v1"
    """
    coder, plain = read(tmp_path, text).experts
    assert coder == config.ExpertEntry(
        name="fast-coder",
        url="http://127.0.0.1:11434/v1",
        model="qwen2.5-coder:7b",
        key_env="CODER_KEY",
        price_in_usd_per_m=0.1,
        price_out_usd_per_m=1.0,
        source="alice",
        skills=("python", "code review"),
        offers=("tools",),
    )
    assert (plain.model, plain.source, plain.kind) == ("plain", "plain", "openai")


def test_an_expert_of_documents_claims_nothing_of_all_else(tmp_path: Path) -> None:
    """Unless its entry does; its writer may be somebody of whom the file says nothing."""
    text = '[[expert]]\nname = "{}"\nkind = "documents"\npath = "handbook"\n'
    more = 'writer = "gemma-3-270m"\ncites = "quote"\nwatch = true\naccuracy = 0.4\n'
    plain, told = read(tmp_path, text.format("plain") + text.format("told") + more).experts
    assert (plain.accuracy, plain.writer, plain.cites, plain.watch) == (0.0, "", "place", False)
    assert plain.path == str(tmp_path / "handbook")
    assert (told.accuracy, told.writer, told.cites, told.watch) == (0.4, "gemma-3-270m", "quote", True)
    with pytest.raises(ConfigError, match="is 'gemma-3-270m', which is no expert here"):
        config.check_writers([plain, told], {"other"})
    config.check_writers([plain, told], {"gemma-3-270m"})


def test_a_mark_at_the_start_of_the_file_is_tolerated(tmp_path: Path) -> None:
    assert read(tmp_path, "\ufeff[server]\nport = 7").server.port == 7


# --- what is wrong ---------------------------------------------------------------------------------

WRONG = {
    "[server]\nprot = 1": ["prot", "[server]", "some.toml", "Did you mean port?"],
    "[servr]\nport = 1": ["servr", "some.toml", "Did you mean server?"],
    "[[experts]]\nname = 'a'": ["experts", "Did you mean expert?"],
    "[zzzzzz]": [
        "zzzzzz",
        "There are: server, local, policy, ledger, cache, network, private, expert, peer, aliases.",
    ],
    "[server]\nxyzzy = 1": [
        "xyzzy",
        "There are: host, port, keys, most_at_once, max_body_mb, tls_cert, tls_key, workers.",
    ],
    "port = 1": ["port", "It belongs under [server]"],
    "url2 = 1": ["url2"],
    "[server]\ndeadline_s = 1": ["deadline_s", "It belongs under [policy]"],
    "[server]\nprice_in_usd_per_m = 1": ["It belongs under [network] or [[expert]] or [[peer]]."],
    "server = 1": ["server is a section", "[server]"],
    "[[server]]\nport = 1": ["server is a section", "[server]"],
    "[expert]\nname = 'a'": ["[[expert]]", "two brackets"],
    "expert = ['a']": ["[[expert]]", "two brackets"],
    "[server]\nport = 70000": ["server.port", "some.toml", "65535", "70000", "TCP port"],
    "[server]\nport = -1": ["server.port", "0", "-1"],
    "[server]\nport = '80'": ["server.port", "int", "'80'"],
    "[server]\nport = true": ["server.port", "int", "True"],
    "[server]\nport = 1979-05-27": ["server.port", "int"],
    "[server]\nhost = ''": ["server.host"],
    "[local]\ntier = 'huge'": ["local.tier", "'huge'", "starter, full or none"],
    "[local]\nmax_memory_gb = 0": ["local.max_memory_gb"],
    "[local]\nmax_memory_gb = inf": ["local.max_memory_gb", "finite"],
    "[local]\nthreads = 0": ["local.threads"],
    "[policy]\ndeadline_s = nan": ["policy.deadline_s"],
    "[policy]\ndeadline_s = -1.5": ["policy.deadline_s", "-1.5"],
    "[policy]\nbudget_usd = -0.1": ["policy.budget_usd", "-0.1"],
    "[policy]\ndefault = 'ato'": ["policy.default", "'ato'", "auto, max, cheap or fast"],
    "[ledger]\nurl = 'sqlite:///:memory:'": ["ledger.url", "sqlite:///FILE"],
    "[ledger]\nurl = 'sqlite:///'": ["ledger.url", "sqlite:///FILE"],
    "[ledger]\nurl = 'mysql://me:hunter2@db/x'": ["ledger.url", "me:***@db"],
    "[network]\ncallers = ['Anyone']": ["network.callers", "patterns"],
    f"[[peer]]\nname = 'a'\nid = '{'a' * 32}'\nbudget_nats = 1": [
        "'a' has budget_nats",
        "network.budget_nats",
    ],
    "[ledger]\nstore_text = 1": ["ledger.store_text", "bool"],
    "[server]\nport =": ["not valid TOML", "line 2"],
    "[server]\nport = 1\nport = 2": ["not valid TOML", "line 3"],
    "a = " + "[" * 5000: ["not valid TOML"],
}


@pytest.mark.parametrize("text", WRONG)
def test_wrong_files_are_named(tmp_path: Path, text: str) -> None:
    said = complaint(tmp_path, text)
    for word in WRONG[text]:
        assert word in said
    assert "hunter2" not in said


EXPERT = "[[expert]]\nname = 'a'\n"
DOCUMENTS = EXPERT + "kind = 'documents'\npath = 'p'\n"
WRONG_EXPERTS = {
    "[[expert]]\nurl = 'http://a'": ["number 1", "no name"],
    "[[expert]]\nname = 'a b'\nurl = 'http://a'": ["expert.name", "'a b'"],
    "[[expert]]\nname = ''\nurl = 'http://a'": ["expert.name"],
    '[[expert]]\nname = "a\\n"\nurl = "http://a"': ["expert.name"],
    f"[[expert]]\nname = '{'a' * 65}'\nurl = 'http://a'": ["expert.name", "..."],
    "[[expert]]\nname = 'auto'\nurl = 'http://a'": ["'auto'", "policy"],
    EXPERT + "url = 'http://a'\n" + EXPERT + "url = 'http://b'": ["two experts", "'a'", "rename"],
    EXPERT: ["'a'", "needs url"],
    EXPERT + "kind = 'local'": ["'a'", "needs path", "GGUF"],
    EXPERT + "kind = 'recorded'": ["'a'", "needs path"],
    EXPERT + "kind = 'recorded'\npath = 'p'\noffers = ['embeddings']": ["'a'", "kind openai"],
    EXPERT + "url = 'http://h/v1'\noffers = ['embeddings', 'tools']": ["'a'", "nothing else"],
    EXPERT + "kind = 'documents'": ["'a'", "needs path", "documents"],
    DOCUMENTS + "url = 'http://h/v1'": ["kind documents", "url is not for that"],
    EXPERT + "url = 'http://h/v1'\ncites = 'quote'": ["kind openai", "cites", 'kind = "documents"'],
    DOCUMENTS + "cites = 'all'": ["expert.cites", "'all'", "quote"],
    DOCUMENTS + "writer = 'a'": ["writer", "itself"],
    DOCUMENTS + "writer = 'b'\n" + DOCUMENTS.replace("'a'", "'b'"): ["writer", "b, which writes no answers"],
    EXPERT + "kind = 'magic'": ["expert.kind", "'magic'", "openai"],
    EXPERT + "url = 'ftp://a'": ["http://HOST:PORT/v1", "ftp://a"],
    EXPERT + "url = 'a:11434/v1'": ["http://HOST:PORT/v1"],
    EXPERT + "url = 'http://'": ["http://HOST:PORT/v1"],
    EXPERT + "url = 'http://a b/v1'": ["http://HOST:PORT/v1"],
    EXPERT + "url = 'http://a:port/v1'": ["http://HOST:PORT/v1"],
    EXPERT + "url = 'http://[::1/v1'": ["http://HOST:PORT/v1"],
    EXPERT + "url = 'ftp://me:hunter2@a?key=hunter2'": ["me:***@a?key=***"],
    EXPERT + "url = 'http://me:hunter2@a:port'": ["***"],
    EXPERT + "api_key = 'hunter2'": ["api_key", "key_env"],
    EXPERT + "key = 'hunter2'": ["key_env"],
    EXPERT + "token = 'hunter2'": ["key_env"],
    EXPERT + "max_tokens = 3": ["max_tokens", "Did you mean context_tokens?"],
    EXPERT + "key_env = 'sk-hunter2'": ["key_env", "never the key"],
    EXPERT + "nmae = 'a'": ["nmae", "[[expert]]", "Did you mean name?"],
    EXPERT + "price_in_usd_per_m = -1": ["expert.price_in_usd_per_m", "number 1"],
    EXPERT + "accuracy = 1.1": ["expert.accuracy"],
    EXPERT + "skills = 'python'": ["expert.skills", "array"],
    EXPERT + "offers = ['magic']": ["expert.offers", "json_schema"],
}


@pytest.mark.parametrize("text", WRONG_EXPERTS)
def test_wrong_experts_are_named(tmp_path: Path, text: str) -> None:
    said = complaint(tmp_path, text)
    for word in WRONG_EXPERTS[text]:
        assert word in said
    assert "hunter2" not in said


def test_wrong_variables_and_flags_are_named(tmp_path: Path) -> None:
    said = complaint(tmp_path, "", {"MANYMINDS_SERVER_PROT": "1"})
    assert "MANYMINDS_SERVER_PROT" in said
    assert "Did you mean MANYMINDS_SERVER_PORT?" in said
    assert "environment MANYMINDS_SERVER_PORT" in complaint(tmp_path, "", {"MANYMINDS_SERVER_PORT": "x"})
    assert "server.port (flag)" in complaint(tmp_path, "", flags={"server.port": 70000})
    assert "Did you mean server.port?" in complaint(tmp_path, "", flags={"server.prt": 1})


def test_an_overridden_value_is_still_checked(tmp_path: Path) -> None:
    assert "some.toml" in complaint(tmp_path, "[server]\nport = 'x'", flags={"server.port": 1})


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    for path, why in ((tmp_path / "none.toml", "No such file"), (tmp_path, "directory")):
        with pytest.raises(ConfigError, match=why):
            load(path, {}, {})
    (tmp_path / "latin.toml").write_bytes("# \xe9".encode("latin-1"))
    with pytest.raises(ConfigError, match="UTF-8"):
        load(tmp_path / "latin.toml", {}, {})


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
))  # fmt: skip
def test_any_flag_is_taken_or_refused_in_words(value: Any) -> None:
    for key in reference():
        if key.startswith(("expert.", "peer.")):
            continue
        try:
            taken = load(None, {"MANYMINDS_HOME": "/h"}, {key: value}).origins[key]
        except ConfigError as error:
            taken = "refused" if key in error.message else error.message
        assert taken in (("default",) if value is None else ("flag", "refused"))


# --- showing ---------------------------------------------------------------------------------------


def test_every_value_is_shown_with_its_origin_and_no_secret(tmp_path: Path) -> None:
    text = (
        EXPERT + "url = 'https://me:hunter2@a/v1?api_key=hunter2&x='\nkey_env = 'A_KEY'\n[server]\nport = 9"
        "\n[ledger]\nurl = 'postgresql://me:hunter2@db/x?password=hunter2'"
    )
    shown = {setting.key: setting for setting in describe(read(tmp_path, text))}
    assert shown["expert.a.url"].value == "https://me:***@a/v1?api_key=***&x=***"
    assert shown["expert.a.url"].origin == shown["server.port"].origin == f"file {tmp_path / 'some.toml'}"
    assert shown["expert.a.source"] == config.Setting("expert.a.source", "a", "default")
    assert shown["server.port"].value == 9
    assert shown["ledger.url"].value == "postgresql://me:***@db/x?password=***"
    assert shown["home"].value == str(tmp_path)
    keys = {key.replace("expert.", "expert.a.") for key in reference() if not key.startswith("peer.")}
    assert set(shown) == keys | {"home"}
    assert b"hunter2" not in msgspec.json.encode(list(shown.values()))


def test_mask_leaves_what_is_not_secret() -> None:
    for text in ("", "a@b", "http://a:80/v1", "sqlite:////x/ledger.db", "what? a=b", "http://[::1]:8/v1#f"):
        assert mask(text) == text
    assert mask("https://token@a") == "https://***@a"
    assert mask("https://a?token") == "https://a?***"
    assert mask("http://u:p@[::1") == "***"
    assert mask("postgresql://me:1/2@db/x") == mask("postgresql://me:1#2@db/x") == "***"


@given(
    st.text(st.characters(codec="ascii", categories=("L", "N", "P")), min_size=1).map(lambda s: f"<{s}>"),
    st.sampled_from(
        ["http://u:{}@h/v1", "http://{}@h/v1", "http://h?k={}", "http://h/v1?a=b&k={}", "http://h?{}"]
    ),
)
def test_mask_hides_whatever_the_secret_is(secret: str, form: str) -> None:
    from urllib.parse import quote

    assert quote(secret, safe="") not in mask(form.format(quote(secret, safe="")))


def test_every_key_has_a_description_and_the_defaults_keep_their_schema() -> None:
    for key, schema in reference().items():
        assert schema["description"], key
        assert "default" in schema or key in ("expert.name", "peer.name", "peer.id")
    for struct in (config.Server, config.Local, config.Policy, config.Ledger, config.Network):
        assert msgspec.convert(msgspec.to_builtins(struct()), struct) == struct()
