#!/usr/bin/env python3
"""Tests of what the table tools make of repeated runs."""

import unittest

import schedule_table


def run(peak, want, step, want_step, **more):
    return 0, {"peak_rss_bytes": peak << 20, "predicted_peak_bytes": want << 20,
               "step_seconds": step, "predicted_step_seconds": want_step, "seconds": 10 * step,
               "predicted_seconds": 10 * want_step, "steps": 10, "offloaded": False,
               "recompute": True, **more}


class ScheduleTableTest(unittest.TestCase):
    def cells(self, *rounds):
        return schedule_table.row_text(("s", "1GiB", "lora"), rounds).split(" | ")

    def test_one_round_is_printed_as_it_is(self):
        cells = self.cells(run(100, 101, 2.0, 1.0))
        self.assertEqual(cells[3:12], ["10", "no", "yes", "101", "100", "+1.0%", "1.000", "2.000",
                                       "-50.0%"])

    def test_times_are_medians_and_the_peak_is_the_worst_pair(self):
        cells = self.cells(run(100, 110, 2.0, 4.0), run(200, 199, 9.0, 3.0, offloaded=True),
                           run(300, 303, 3.0, 1.0))
        self.assertEqual(cells[3:12], ["10", "yes/no", "yes", "199", "200", "-0.5% to +10.0%",
                                       "3.000", "3.000", "+0.0%"])

    def test_a_refusal_among_the_rounds_is_a_refusal(self):
        refusal = 3, {"error": {"message": "too small"}}
        self.assertIn("exit 3 (1 of 2 runs): too small", self.cells(run(1, 1, 1, 1), refusal)[3])
        self.assertIn("exit 3: too small", self.cells(refusal, refusal)[3])
        self.assertEqual(schedule_table.summary([[refusal]]), "no run fitted")

    def test_the_summary_counts_the_peaks_of_every_run(self):
        rows = [[run(100, 110, 1.0, 1.1), run(100, 99, 1.0, 1.3), run(100, 101, 1.0, 1.0)],
                [run(100, 100, 1.0, 2.0)] * 3]
        self.assertEqual(
            schedule_table.summary(rows),
            "6 runs of 2 rows: 1 step times within 15% (worst 100%), 5 peaks within 5% (worst "
            "+10.0%), 1 peaks below the measured one")


if __name__ == "__main__":
    unittest.main()
