"""The alert rules of docs/serving.md ask for metrics that the server and the monitor give."""

import re
from pathlib import Path

import pandas as pd
import pytest

from cxr_compare.scripts.commands.monitor import monitor

yaml = pytest.importorskip("yaml")
PAGE = Path(__file__).resolve().parents[3] / "docs/serving.md"


def blocks() -> list[dict]:
    texts = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return [yaml.safe_load(text) for text in texts]


def test_every_metric_of_the_alert_rules_exists(client, tmp_path):
    log = pd.DataFrame({"patient": range(60), "score": [0.1, 0.9] * 30})
    log["time"] = pd.date_range("2026-01-01", periods=60, freq="D", tz="UTC").strftime("%FT%TZ")
    log["decision"] = ["negative", "positive"] * 30
    log.to_csv(tmp_path / "log.csv", index=False)
    monitor(tmp_path / "log.csv", out=tmp_path / "monitor")
    given = client.get("/metrics").text + (tmp_path / "monitor/monitor.prom").read_text()
    names = {
        name + ("_total" if kind == "counter" and not name.endswith("_total") else "")
        for name, kind in re.findall(r"^# TYPE (\w+) (\w+)", given, re.MULTILINE)
    }
    (rules,) = (block["groups"][0]["rules"] for block in blocks() if "groups" in block)
    used = set(re.findall(r"\bcxr_\w+", " ".join(rule["expr"] for rule in rules)))
    assert len(rules) >= 5
    assert used
    assert used <= names


def test_the_scrape_sends_the_token_and_reads_the_rules_of_the_page():
    (scrape,) = (block for block in blocks() if "scrape_configs" in block)
    server = scrape["scrape_configs"][0]
    assert server["authorization"] == {"credentials_file": "token"}
    assert scrape["rule_files"] == ["cxr-alerts.yml"]
    assert f"`{scrape['rule_files'][0]}`" in PAGE.read_text()
