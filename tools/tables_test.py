#!/usr/bin/env python3
"""Tests of what the table tools make of repeated runs."""

import pathlib
import tempfile
import unittest

import memory_cgroup
import overlap_table
import schedule_table


def run(peak, want, step, want_step, **more):
    return 0, {"peak_rss_bytes": peak << 20, "predicted_peak_bytes": want << 20,
               "step_seconds": step, "predicted_step_seconds": want_step, "seconds": 10 * step,
               "predicted_seconds": 10 * want_step, "steps": 10, "offloaded": False,
               "recompute": True, "recomputed": "mlp", **more}


class ScheduleTableTest(unittest.TestCase):
    def cells(self, *rounds):
        return schedule_table.row_text(("s", "1GiB", "lora"), rounds).split(" | ")

    def test_one_round_is_printed_as_it_is(self):
        cells = self.cells(run(100, 101, 2.0, 1.0))
        self.assertEqual(cells[3:12], ["10", "no", "mlp", "101", "100", "+1.0%", "1.000", "2.000",
                                       "-50.0%"])

    def test_times_are_medians_and_the_peak_is_the_worst_pair(self):
        cells = self.cells(run(100, 110, 2.0, 4.0), run(200, 199, 9.0, 3.0, offloaded=True),
                           run(300, 303, 3.0, 1.0))
        self.assertEqual(cells[3:12], ["10", "yes/no", "mlp", "199", "200", "-0.5% to +10.0%",
                                       "3.000", "3.000", "+0.0%"])

    def test_what_a_cgroup_counted_comes_last(self):
        rounds = [run(100, 101, 2.0, 1.0, cgroup={"peak_bytes": n << 20, "hits": 9 - n})
                  for n in (7, 8)]
        self.assertEqual(self.cells(*rounds)[17:], ["8", "2 |"])

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

class OverlapTableTest(unittest.TestCase):
    def test_quotients_are_those_of_each_turn(self):
        def turn(step, compute, gbps, read=4e9):
            return ({"step_seconds": step, "weights_read_bytes": read, "steps": 4, "group": 1,
                     "predicted_step_seconds": step / 2}, {"step_seconds": compute}, gbps)
        case = ("s", "1GiB", "lora", "256", "searched", "1")
        # The machine halves its speed and the disk has its turn as the slower one: the medians of
        # the columns (3.0 over 2.0) would say 1.5.
        text = overlap_table.overlap_text(case, [turn(1.2, 1.0, 2.0), turn(3.0, 2.0, 2.0),
                                                 turn(4.4, 0.5, 0.25)])
        self.assertEqual(text.split(" | ")[5:], ["1 of 1", "1.00", "2.00", "0.50", "1.00", "3.00",
                                                 "1.20x (1.10 to 1.50)", "1.50 |"])
        text = overlap_table.overlap_text(case, [turn(1.2, 1.0, 2.0)])
        self.assertEqual(text.split(" | ")[11], "1.20x")

    def orders(self, row, column, searched, group=4):
        def runs(seconds, group):
            return [s and {"step_seconds": s, "predicted_step_seconds": 2 * s, "group": group}
                    for s in seconds]
        return overlap_table.orders_text("s", "1GiB", "edge", "8", {
            "row": runs(row, 1), "column": runs(column, 8),
            "searched": runs(searched, group)}).split(" | ")

    def test_a_plan_that_is_a_fixed_orders_own_is_named(self):
        self.assertEqual(self.orders([2.0], [1.0], [1.0], group=8)[7], "8 = column")
        self.assertEqual(self.orders([1.0], [2.0], [1.0], group=1)[7], "1 = row")

    def test_orders_are_compared_within_a_turn(self):
        self.assertEqual(self.orders([2.0, 8.0, 2.0], [1.0, 4.0, 4.0], [0.8, 4.4, 1.0])[4:],
                         ["2.00 (2.00 to 8.00)", "4.00 (1.00 to 4.00)", "1.00 (0.80 to 4.40)", "4",
                          "0.80x (0.25 to 1.10)", "4.00", "8.00", "2.00 |"])

    def test_orders_that_do_not_fit(self):
        none = [None, None]
        self.assertEqual(self.orders(none, [2.0, 2.0], [1.0, 1.0])[4:9],
                         ["does not fit", "2.00 (2.00 to 2.00)", "1.00 (1.00 to 1.00)", "4",
                          "0.50x (0.50 to 0.50)"])
        self.assertEqual(self.orders(none, none, [1.0, 1.0])[8:11], ["-", "-", "-"])
        self.assertIn("does not fit", self.orders(none, none, none)[4])

class MemoryCgroupTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.root = pathlib.Path(self.folder.name)
        self.write("proc/self/cgroup",
                   "9:cpu,cpuacct:/c\n4:memory:/a/b\n1:name=systemd:/\n0::/u/s\n")

    def write(self, path, text):
        path = self.root / path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def mounts(self, *lines):
        self.write("proc/mounts", "".join(f"{line}\n" for line in lines))
        return self.root / "proc"

    def test_hierarchies(self):
        self.write("v2/cgroup.controllers", "cpu io memory\n")
        self.write("hybrid/cgroup.controllers", "hugetlb\n")
        proc = self.mounts("proc /proc proc rw 0 0", "cgroup /g/cpu cgroup rw,cpu 0 0",
                           "cgroup /g/memory cgroup rw,relatime,memory 0 0",
                           f"none {self.root}/v2 cgroup2 rw 0 0",
                           f"none {self.root}/hybrid cgroup2 rw 0 0")
        self.assertEqual(memory_cgroup.memory_hierarchies(proc),
                         [(1, pathlib.Path("/g/memory")), (2, self.root / "v2")])
        self.assertEqual(memory_cgroup.own_group(1, proc), "a/b")
        self.assertEqual(memory_cgroup.own_group(2, proc), "u/s")

    def test_where_none_can_be_made_it_says_so_and_leaves_nothing(self):
        proc = self.mounts("proc /proc proc rw 0 0")
        with self.assertRaisesRegex(memory_cgroup.CgroupError, "no hierarchy"):
            memory_cgroup.MemoryCgroup(1 << 30, proc)
        # A folder is no hierarchy: what is made in it has no file for the limit.
        self.write("v2/cgroup.controllers", "memory\n")
        proc = self.mounts(f"none {self.root}/v2 cgroup2 rw 0 0")
        with self.assertRaisesRegex(memory_cgroup.CgroupError, "No such file"):
            memory_cgroup.MemoryCgroup(1 << 30, proc)
        self.assertEqual([p.name for p in (self.root / "v2").iterdir()], ["cgroup.controllers"])


if __name__ == "__main__":
    unittest.main()
