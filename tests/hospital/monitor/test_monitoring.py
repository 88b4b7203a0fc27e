"""A monitor of a log: quiet where nothing changes, and what it says where something does."""

import resource

import numpy as np
import pandas as pd
import pytest

from cxr_compare.hospital.monitor import monitor_sentences, monitored_figures
from cxr_compare.hospital.monitor.monitor_result import ERROR, KINDS
from cxr_compare.hospital.monitor.monitored_figures import counting_days
from cxr_compare.hospital.monitor.monitoring import monitor_log

START = pd.Timestamp("2026-01-01", tz="UTC")


def make_log(day, **columns) -> pd.DataFrame:
    """Answers on given days, each of a patient of its own unless said otherwise."""
    time = START + pd.to_timedelta(np.asarray(day, dtype=float), unit="D")
    usual = {"patient": np.arange(len(time)), "score": 0.5}
    return pd.DataFrame({"time": time, **usual, **columns})


def stepped(rng, low, high, *, at=100, days=200, per_day=20) -> pd.DataFrame:
    """Calls with a share that steps up on a day."""
    day = np.arange(days * per_day) / per_day
    return make_log(day, decision=rng.random(len(day)) < np.where(day < at, low, high))


def row_of(found, key):
    return next(row for row in found.rows if row.key == key)


def test_shares_of_all_figures_add_up_to_the_stated_probability():
    assert sum(kind.share for kind in KINDS.values()) == pytest.approx(1)
    rng = np.random.default_rng(0)
    n = 2000
    log = make_log(
        np.arange(n) / 20,
        decision=rng.random(n) < 0.3,
        score=rng.random(n),
        seconds=rng.random(n),
        guard_distance=rng.random(n),
        label=rng.random(n) < 0.5,
        view=rng.choice(["PA", "AP", "LL"], n),
        sex=rng.choice(["M", "F"], n),
        maker=rng.choice(["A", "B"], n),
    )
    other = log.assign(system="B", decision=rng.random(n) < 0.3)
    found = monitor_log(pd.concat([log.assign(system="A"), other]).assign(image=[*range(n)] * 2))
    assert len(found.rows) == 2 * (1 + 1 + 1 + 1 + 1 + 3 + 3 + 1 + 1) + 1 + 4 + 2 + 2
    shares = pd.Series({row.key: row.share for row in found.rows})
    assert shares.min() > 0
    assert shares.sum() == pytest.approx(ERROR * (1 - KINDS["age_band"].share))
    assert shares["call_rate@A"] == pytest.approx(ERROR * KINDS["call_rate"].share / 2)
    assert found.alarms == []


def test_streams_of_patients_with_many_like_images_alarm_no_more_often_than_stated():
    """Eight images a patient, all alike: taken as patients of their own they ring."""
    by_patient = by_image = 0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        n = 400
        patient = np.repeat(np.arange(n), 8)
        day = np.repeat(np.sort(rng.random(n)) * 100, 8) + np.tile([0, 0, 0, 0, 1, 1, 2, 3], n)
        called = (rng.random(n) < 0.3)[patient]
        log = make_log(day, patient=patient, decision=called, score=rng.random(n)[patient])
        by_patient += bool(monitor_log(log).alarms)
        by_image += bool(monitor_log(log.assign(patient=range(len(log)))).alarms)
    assert by_patient == 0
    assert by_image >= 5


def test_patients_who_come_every_month_do_not_ring():
    """Half of the images are of patients who return, and who are called twice as often."""
    alarms = 0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        once = rng.random(3000) * 300
        visits = rng.poisson(10, 300)
        patient = np.concatenate([np.arange(3000), np.repeat(np.arange(300) + 5000, visits)])
        day = np.concatenate([once, rng.random(visits.sum()) * 300])
        called = rng.random(len(day)) < np.where(patient < 5000, 0.2, 0.4)
        alarms += bool(monitor_log(make_log(day, patient=patient, decision=called)).alarms)
    assert alarms == 0


def test_a_step_is_detected_dated_and_described():
    log = stepped(np.random.default_rng(1), 0.2, 0.45)
    found = monitor_log(log)
    (row,) = found.alarms
    assert found.rows[0] is row
    assert (row.key, row.source, row.n_reference, row.n_stream) == (
        "call_rate",
        "first weeks",
        560,
        3440,
    )
    assert row.was.low < 0.2 < row.was.high < 0.45
    assert row.now.low < 0.45 < row.now.high
    assert row.share == pytest.approx(ERROR * KINDS["call_rate"].share)
    assert row.evidence >= row.bound == 1 / row.share
    change = row.change
    assert "2026-04-05" <= change.since_low <= change.since <= change.since_high <= "2026-04-17"
    assert "2026-04-11" < change.on < "2026-05-01"
    assert change.one_in == row.evidence
    quiet = [part for part in row.course if part.end < "2026-04-01"]
    assert max(part.evidence for part in quiet) < 2
    assert row.course[0].evidence == 0
    assert row.course[-1].mean == pytest.approx(0.45, abs=0.15)


def test_a_late_change_in_a_long_log_is_detected():
    log = stepped(np.random.default_rng(2), 0.2, 0.5, at=900, days=930)
    (row,) = monitor_log(log).alarms
    assert row.change.since in {f"2028-06-{day}" for day in (18, 19, 20)}


def test_a_patient_counts_once_a_window_by_the_first_day_in_it():
    day = [*range(100), 0.5, 1, 20, 28, 40, 57]
    patient = [*range(100), 0, 0, 0, 0, 0, 0]
    decision = [0] * 100 + [1, 1, 1, 1, 1, 0]
    log = make_log(day, patient=patient, decision=decision)
    found = monitor_log(log, first=60, window=28)
    row = row_of(found, "call_rate")
    # Patient 0: the mean 0.5 of both images of day 0, then day 28 and day 57; day 40 is too soon.
    assert (row.n_reference, row.n_stream) == (62, 40)
    assert row.was.mean == pytest.approx((0.5 + 1 + 0) / 62)
    assert row_of(monitor_log(log, first=60, window=365), "call_rate").n_reference == 60
    assert (found.n_images, found.n_patients) == (106, 100)


@pytest.mark.parametrize(("weeks", "rings"), [(4, False), (80, True)])
def test_a_small_reference_rings_less_easily(weeks, rings):
    """Fourteen patients a week: 0.3 for 4 weeks or for 80, and then 0.5."""
    before = np.tile([0, 0, 0, 1, 1, 0, 0, 1, 0, 0], 14 * weeks // 10 + 1)
    after = [0, 1] * 150
    decision = np.concatenate([before[: 14 * weeks], after])
    log = make_log(np.arange(len(decision)) / 2, decision=decision)
    assert bool(monitor_log(log, first=7 * weeks).alarms) == rings


def test_too_few_patients_in_the_reference_take_no_share():
    log = stepped(np.random.default_rng(3), 0.0, 1.0, per_day=1)
    row = row_of(monitor_log(log, first=49), "call_rate")
    assert (row.share, row.bound, row.change, row.n_reference) == (0.0, None, None, 49)
    assert row_of(monitor_log(log, first=50), "call_rate").change is not None


def test_a_small_shift_of_all_scores_is_found_within_three_weeks_by_their_mean():
    rng = np.random.default_rng(8)
    day = np.arange(82 * 20) / 20
    height = rng.normal(size=len(day)) + np.where(day >= 60, 0.3, 0.0)
    (row,) = monitor_log(make_log(day, score=1 / (1 + np.exp(-height)))).alarms
    assert row.key == "score_mean"
    assert "2026-03-02" <= row.change.on <= "2026-03-22"  # the change came on 2 March
    assert row.change.since_low <= "2026-03-05"
    assert row.change.since_high >= "2026-02-27"
    assert row.was.mean == pytest.approx(0.5, abs=0.03)
    assert row.now.mean == pytest.approx(0.57, abs=0.03)


@pytest.mark.parametrize(("low", "high"), [(-8.0, 8.0), (0.0, 100.0)])
def test_scores_of_any_scale_are_monitored_like_those_between_0_and_1(low, high):
    """The log of another program may hold logits or percentages."""
    rng = np.random.default_rng(9)
    day = np.arange(2400) / 20
    score = rng.beta(2, 5, 2400) + np.where(day >= 70, 0.15, 0.0)
    score = np.minimum(score, 1.0)
    expected = row_of(monitor_log(make_log(day, score=score)), "score_mean")
    row = row_of(monitor_log(make_log(day, score=low + (high - low) * score)), "score_mean")
    assert expected.change is not None
    assert row.change.on == expected.change.on
    assert 0 <= row.was.mean < row.now.mean <= 1
    assert row.title != expected.title


def test_values_that_the_first_weeks_lack_are_detected():
    day = np.arange(4000) / 20
    maker = np.where((day > 120) & (np.arange(4000) % 5 == 0), "B", "A")
    status = np.where((day > 150) & (np.arange(4000) % 4 == 0), "failed", "ok")
    found = monitor_log(make_log(day, maker=maker, status=status))
    assert [row.key for row in found.alarms] == ["maker=A", "maker=new", "failed"]
    assert [row.change.since for row in found.alarms[1:]] == ["2026-05-01", "2026-05-31"]


def test_a_class_of_one_patient_in_the_first_weeks_tells_how_often_a_new_one_comes():
    """Later on as many classes are new as a patient in fifty of the first weeks has of its own."""
    number = np.arange(4000)
    maker = np.where(number % 50 == 0, np.char.add("M", (number // 50).astype(str)), "A")
    row = row_of(monitor_log(make_log(number / 20, maker=maker)), "maker=new")
    assert row.was.mean == pytest.approx(0.02, abs=0.002)
    assert row.now.mean == pytest.approx(0.02, abs=0.002)
    assert row.change is None


def test_sensitivity_is_compared_with_validation_and_ppv_with_the_first_weeks():
    rng = np.random.default_rng(4)
    day = np.arange(6000) / 20
    label = rng.random(6000) < 0.5
    log = make_log(
        day,
        image=np.arange(6000),
        label=np.where(np.arange(6000) % 3 == 0, label, np.nan),
        decision=np.where(label, rng.random(6000) < 0.6, rng.random(6000) < 0.1),
    )
    truth = np.tile([True, False], 500)
    validation = pd.DataFrame(
        {
            "patient": range(1000),
            "label": truth,
            "system": "CheXNet",
            "score": 0.5,
            "decision": np.where(truth, np.arange(1000) % 10 != 0, np.arange(1000) % 20 == 1),
        }
    )
    found = monitor_log(log, validation)
    assert [row.key for row in found.alarms] == ["sensitivity"]
    (row,) = found.alarms
    assert (row.source, row.n_reference) == ("validation", 500)
    assert row.n_stream == (label & (np.arange(6000) % 3 == 0)).sum()
    assert row.change.since < "2026-01-20"
    assert row_of(found, "ppv").source == "first weeks"
    assert any(note.startswith("Call rate: ") and "in validation" in note for note in found.notes)


def test_the_mix_that_explains_a_change_is_named():
    rng = np.random.default_rng(5)
    day = np.arange(6000) / 20
    portable = rng.random(6000) < np.where(day < 150, 0.3, 0.8)
    log = make_log(
        day,
        view=np.where(portable, "AP", "PA"),
        sex=rng.choice(["F", "M"], 6000),
        decision=rng.random(6000) < np.where(portable, 0.5, 0.1),
    )
    row = row_of(monitor_log(log), "call_rate")
    assert row.change.mix == "view"
    assert row.change.mix_share == pytest.approx(1, abs=0.2)
    assert row.change.groups == ()  # both sexes, and either view alone, have it alike
    assert row_of(monitor_log(log), "view=AP").change.mix == ""


def test_the_group_with_the_largest_change_is_named():
    rng = np.random.default_rng(7)
    day = np.arange(6000) / 20
    maker = rng.choice(["A", "B"], 6000)
    called = rng.random(6000)
    broken = (day >= 150) & (maker == "B")
    log = make_log(day, maker=maker, decision=called < np.where(broken, 0.7, 0.2))
    (row,) = monitor_log(log).alarms
    (group,) = row.change.groups
    assert (group.column, group.group, row.change.mix) == ("maker", "B", "")
    assert (group.before, group.since) == pytest.approx((0.2, 0.7), abs=0.06)
    since = (day >= (pd.Timestamp(row.change.since, tz="UTC") - START).days) & (maker == "B")
    assert group.n_patients == pytest.approx(since.sum(), abs=20)


def test_systems_that_diverge_and_a_new_threshold_are_reported():
    rng = np.random.default_rng(6)
    day = np.arange(4000) / 20
    calls = rng.random(4000) < 0.3
    late = (day >= 100) & (rng.random(4000) < 0.3)
    one = make_log(day, image=np.arange(4000), decision=calls, system="A", threshold=0.5)
    two = one.assign(system="B", decision=calls ^ late, threshold=np.where(day < 150, 0.4, 0.6))
    found = monitor_log(pd.concat([one, two]))
    assert {row.key for row in found.alarms} == {"disagreement@A and B", "call_rate@B"}
    assert not row_of(found, "call_rate@A").change
    assert found.notes[0] == monitor_sentences.new_threshold("B", 0.4, 0.6, "2026-05-31")
    renamed = one.assign(system=np.where(day < 100, "A", "C"))
    assert monitor_log(renamed).notes == (
        monitor_sentences.silent("A", "2026-04-10"),
        monitor_sentences.new_system("C", "2026-04-11"),
    )


@pytest.mark.parametrize(
    "early", [["1970-01-01"], ["2025-06-01"], ["1970-01-01", "1970-01-02", "2025-06-01"]], ids=len
)
def test_rows_of_a_clock_that_was_wrong_do_not_hide_an_alarm(early):
    """As one row of 1970 was the reference of all else, nothing was ever tested."""
    log = stepped(np.random.default_rng(1), 0.2, 0.6, at=40, days=70)
    wrong = log.iloc[: len(early)].assign(time=pd.to_datetime(early, utc=True), patient=-1)
    found = monitor_log(pd.concat([log, wrong]))
    expected = monitor_log(log)
    assert [row.key for row in expected.alarms] == ["call_rate"]
    told = [(row.key, row.change, row.course, row.n_reference) for row in found.rows]
    assert told == [(row.key, row.change, row.course, row.n_reference) for row in expected.rows]
    assert found.first_day == "2026-01-01"
    assert early[0] in found.notes[0]


def test_a_first_part_of_a_log_that_has_patients_enough_stays_the_reference():
    log = stepped(np.random.default_rng(1), 0.2, 0.6, at=100, days=120)
    log = log[(log["time"] < START + pd.Timedelta(days=30)) | (log["time"] >= "2026-04-01")]
    found = monitor_log(log)
    assert found.first_day == "2026-01-01"
    assert row_of(found, "call_rate").n_reference == 560
    assert monitor_sentences.pause("2026-01-31", "2026-03-31") in found.notes


def test_a_sparse_log_without_any_reference_is_kept_and_blind():
    found = monitor_log(make_log(np.arange(10) * 60))
    assert found.n_images == 10
    assert found.is_blind
    assert not monitor_log(make_log(np.arange(10))).is_blind  # the reference is not over


def test_memory_follows_the_rows_not_the_calendar():
    log = stepped(np.random.default_rng(1), 0.2, 0.6, at=40, days=70)
    late = log.iloc[:1].assign(time=pd.Timestamp("2261-01-01", tz="UTC"))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = monitor_log(pd.concat([log, late.assign(patient=-1)]))
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert [row.key for row in found.alarms] == ["call_rate"]
    assert found.alarms[0].change.since < "2026-03-01"
    assert found.last_day == "2261-01-01"
    assert grown_kib < 300 << 10


def test_of_many_systems_those_with_most_answers_are_monitored(monkeypatch):
    monkeypatch.setattr(monitored_figures, "MOST_SYSTEMS", 4)  # every pair of them is compared
    log = stepped(np.random.default_rng(1), 0.2, 0.2, days=75, per_day=8)
    names = [f"rare {n}" if n % 2 else f"often {n % 8}" for n in range(len(log))]
    found = monitor_log(log.assign(system=names, image="one"))
    watched = {row.key.partition("@")[2] for row in found.rows if row.kind == "call_rate"}
    assert watched == {f"often {n}" for n in range(0, 8, 2)}
    assert any("with fewer answers" in note for note in found.notes)
    assert len(found.notes) < 30


def test_days_that_count_are_those_of_a_plain_loop():
    rng = np.random.default_rng(0)
    patient = rng.integers(0, 30, 600)
    day = np.sort(rng.integers(0, 200, 600))
    for window in (1, 7, 28, 10**9):
        since: dict[int, int] = {}
        expected = []
        for who, when in zip(patient.tolist(), day.tolist(), strict=True):
            if who not in since or when - since[who] >= window:
                since[who] = when
            expected.append(since[who] == when)
        assert counting_days(patient, day, window).tolist() == expected
