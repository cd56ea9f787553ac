"""Findings are told in a line, without what is nobody's business."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lstm_model.bot.discretion import Discretion
from lstm_model.setup.finding import Finding, State, good, to_do

HOME = Path("/home/someone")
# What is not told apart from words that have to be there.
SECRET = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=8)


def of(config: dict[str, Any], text: str) -> str:
    return Discretion(config, HOME).of(text)


@pytest.mark.parametrize(
    "config",
    [
        {"exchange": {"key": "PLANTED"}},
        {"exchange": {"api_key": "PLANTED"}},
        {"exchange": {"ccxt_config": {"apikey": "PLANTED"}}},
        {"exchange": {"privatekey": "PLANTED"}},
        {"exchange": {"ccxt_config": {"headers": {"X-MBX-APIKEY": "PLANTED", "X-Own": "PLANTED"}}}},
        {"exchange": {"ccxt_config": {"apiKey": "PLANTED"}}},
        {"exchange": {"ccxt_config": {"headers": {"X-API-KEY": "PLANTED"}}}},
        {"exchange": {"walletAddress": "PLANTED", "privateKey": "other"}},
        {"telegram": {"token": "PLANTED"}},
        {"telegram": {"authorized_users": ["PLANTED"]}},
        {"api_server": {"jwt_secret_key": "PLANTED"}},
        {"api_server": {"ws_token": ["other", "PLANTED"]}},
        {"external_message_consumer": {"producers": [{"name": "a", "ws_token": "PLANTED"}]}},
        {"webhook": {"url": "PLANTED"}},
        {"exchange": {"secret": {"value": ["PLANTED"]}}},
        {"exchange": {"keys": ["PLANTED"]}},
        {"discord": {"webhook_url": "PLANTED"}},
        {"db_url": "postgresql://me:PLANTED@host/db"},
        {"lstm": {"journal_url": "postgresql+psycopg://host/db?password=PLANTED"}},
        {"exchange": {"ccxt_config": {"aiohttp_proxy": "http://a:PLANTED@host"}}},
    ],
)
def test_what_an_options_name_makes_a_secret_is_masked_wherever_it_stands(
    config: dict[str, Any],
) -> None:
    assert of(config, "said 'PLANTED', x=PLANTED!") == "said '***', x=***!"


@given(secret=SECRET)
def test_a_secret_is_masked_in_every_form_in_which_it_travels(secret: str) -> None:
    config = {"api_server": {"password": secret}}
    for form in (secret, quote(secret), quote(secret, safe=""), repr(secret)[1:-1]):
        assert form not in of(config, f"before {form} after")
        assert of(config, f"before {form} after").endswith(" after")


def test_a_short_secret_masks_no_other_words() -> None:
    config = {"api_server": {"password": "a1"}}
    assert of(config, "a1 in a1b2 of 'a1'") == "*** in a1b2 of '***'"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:p@ss/w@host:5/db?x=1", "postgresql://me:***@host:5/db?x=1"),
        ("http://host/api?token=abc&x=1", "http://host/api?token=***&x=1"),
        ("(https://host/?apiKey=abc&signature=1)", "(https://host/?apiKey=***&signature=1)"),
        ("sqlite:////home/someone/x", "sqlite:///~/x"),
        ("/home/someone, '/home/someone/a b'", "~, ~/'a b'"),
        ("`-c '/home/someone/a b/c' --userdir /home/someone/u`", "`-c ~/'a b/c' --userdir ~/u`"),
        ("no file '/home/someone/x'", "no file ~/x"),
        ("/home/someone-else/x /data/home/someone", "/home/someone-else/x /data/home/someone"),
        ("http://127.0.0.1:80/x", "http://127.0.0.1:80/x"),
    ],
)
def test_addresses_and_the_home_folder(text: str, shown: str) -> None:
    assert of({}, text) == shown


@pytest.mark.lengthy
@given(config=st.dictionaries(st.text(), st.recursive(
    st.none() | st.booleans() | st.floats() | st.text() | st.integers(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.just("token"), inner),
)))  # fmt: skip
def test_a_configuration_may_be_anything(config: dict[str, Any]) -> None:
    assert of(config, "") == ""


def test_a_finding_is_a_line() -> None:
    assert str(good("disk", "enough")) == "disk: enough"
    assert str(to_do("x", "a\nb", "Do\tit")) == "x: a b. Do it"
    assert str(to_do("x", "Did you mean y?", "See z")) == "x: Did you mean y? See z"
    secret = Finding("x", State.NOTE, "PLANTED", "PLANTED")
    told = secret.without(Discretion({"key": "PLANTED"}, HOME))
    assert (told.text, told.todo, told.state) == ("***", "***", State.NOTE)
