from __future__ import annotations

from nbllm.session.tuning.measurement import Measurement, Speeds
from nbllm.session.tuning.setting import Setting
from nbllm.session.tuning.table import Table

PLAIN = Measurement(Setting(), (Speeds(300, 100, 200), Speeds(320, 90, 210), Speeds(900, 95, 10)), 0.0, 98_000_000)
FAST = Measurement(Setting("Q8_0", threads=1), (Speeds(500.4, 110, 300),), 0.00484, 145_000_000)
BROKEN = Measurement(Setting("Q4_0"), problem="its process was ended by SIGKILL")


def test_text_has_medians_and_marks_what_is_chosen() -> None:
    assert Table([PLAIN, FAST, BROKEN], FAST.setting, "Q4_1").text() == (
        "SETTING          PREFILL  DECODE  8 x DECODE      KL    SIZE\n"
        "Q4_1, as it is       320      95         200  0.0000   98 MB\n"
        "Q8_0, threads=1      500     110         300  0.0048  145 MB  chosen\n"
        "Q4_0                   -       -           -       -       -  its process was ended by SIGKILL"
    )
