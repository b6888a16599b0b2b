#!/usr/bin/env python3
"""check_layers.py finds what it is for, and nothing else."""

import pathlib
import tempfile
import unittest

import check_layers


class CheckLayersTest(unittest.TestCase):
    def errors(self, files):
        with tempfile.TemporaryDirectory() as name:
            root = pathlib.Path(name)
            (root / "cmake").mkdir()
            (root / "cmake/layers.txt").write_text("# ranks\n0 base\n1 io\n1 exec\n2 model\n")
            for path, text in files.items():
                path = root / "src" / path
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            return check_layers.check_tree(root)[1]

    def test_down_and_own_module_are_fine(self):
        self.assertEqual(self.errors({
            "model/a.cc": '#include "model/a.h"\n#include "io/x.h"\n#include <vector>\n',
            "base/b.h": '#include "base/c.h"\n'}), [])

    def test_upward(self):
        found = self.errors({"base/a.h": '#pragma once\n#include "io/x.h"\n'})
        self.assertEqual(len(found), 1)
        self.assertIn("base/a.h:2", found[0])
        self.assertIn("upward", found[0])

    def test_sideways(self):
        found = self.errors({"io/a.cc": '#  include "exec/pool.h"\n'})
        self.assertEqual(len(found), 1)
        self.assertIn("sideways", found[0])

    def test_tests_may_look_sideways_but_not_up(self):
        self.assertEqual(self.errors({
            "io/a_test.cc": '#include "exec/pool.h"\n#include "testing/paths.h"\n'}), [])
        self.assertEqual(len(self.errors({"io/a_test.cc": '#include "model/m.h"\n'})), 1)

    def test_unknown_folders_relative_paths_and_test_support(self):
        self.assertEqual(len(self.errors({"extra/a.h": ""})), 1)
        self.assertEqual(len(self.errors({"io/a.h": '#include "extra/b.h"\n'})), 1)
        self.assertEqual(len(self.errors({"io/a.h": '#include "b.h"\n'})), 1)
        self.assertEqual(len(self.errors({"io/a.h": '#include "../base/b.h"\n'})), 1)
        self.assertEqual(len(self.errors({"io/a.cc": '#include "testing/paths.h"\n'})), 1)


if __name__ == "__main__":
    unittest.main()
