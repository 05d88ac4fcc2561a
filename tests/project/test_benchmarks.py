import csv
import importlib
import subprocess
import sys

import pytest

from tests.checkout import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

import check
import common
import readme

SCRIPTS = sorted(
    path.stem
    for path in (ROOT / "benchmarks").glob("*.py")
    if "def main(arguments" in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_explains_itself(script, capsys):
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(script).main(["--help"])
    assert not ended.value.code
    assert "usage: " in capsys.readouterr().out


@pytest.mark.parametrize("script", ["inference", "serving", "serving_int8", "runtimes"])
def test_each_network_is_measured_in_a_process_of_its_own(script, tmp_path, monkeypatch):
    module = importlib.import_module(script)
    started = []

    def run(words, check):
        started.append(words[1:])
        return subprocess.CompletedProcess(words, 3 if len(started) == 2 else 0)

    monkeypatch.setattr(common.subprocess, "run", run)
    monkeypatch.setattr(module, "measure", pytest.fail)
    nets = ["squeezenet", "mobilenet_v1", "mobilenet_v2"]
    with pytest.raises(SystemExit) as ended:
        module.main(["--net", *nets, "--batch", "1", "--seconds", "2", "--out", str(tmp_path)])
    assert ended.value.code == 3  # of the second, after which none is started
    rest = ["--batch", "1", "--seconds", "2.0", "--out", str(tmp_path)]
    path = str(ROOT / "benchmarks" / f"{script}.py")
    assert started == [[path, "--net", net, *rest] for net in nets[:2]]


SCRIPT = """
import sys
sys.path.insert(0, {folder!r})
import pathlib, common
out = pathlib.Path(sys.argv[2])
turns = common.Turns({{"a": [1.0] * 2, "b": [2.0] * 2}}, {{"a": [1.0] * 2, "b": [2.0] * 2}})
common.save("startup", [common.compare(turns, "a", "b", case="first")], out)
{then}
"""


def test_a_script_without_its_packages_says_what_to_install(tmp_path):
    then = "import there_is_no_such_package"
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(folder=str(ROOT / "benchmarks"), then=then))
    command = [sys.executable, str(script), "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "there_is_no_such_package is not installed. Of a checkout, pip" in done.stderr
    assert "Traceback" not in done.stderr


def test_sides_take_turns_and_own_durations_count():
    calls = []

    def a():
        calls.append("a")

    def b():
        calls.append("b")
        return 2.0

    times = common.interleave({"a": a, "b": b}, seconds=0, warm_up=1, min_turns=3)
    assert "".join(calls) == "ab" + "ab" + "ba" + "ab"
    assert times.seconds["b"] == [2.0] * 3


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_shown_on_a_terminal_only(capsys, monkeypatch, terminal):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    common.interleave({"a": lambda: None}, seconds=0, warm_up=1, min_turns=1)
    shown = capsys.readouterr().err
    assert ("warm-up: a" in shown) == ("turn 1: a, 0 s left" in shown) == terminal


def turns(ours, peer):
    seconds = {"ours": ours, "peer": peer}
    return common.Turns(seconds, seconds)


def test_ratio_is_the_median_of_neighbouring_turns():
    # The ratio of the medians would be 10: a machine that slows down hits both sides.
    row = common.compare(turns([1.0, 10.0, 1.0], [2.0, 20.0, 10.0]), "ours", "peer", case="x")
    assert row.ratio == 2.0


def test_results_are_merged_and_tables_are_written_from_them(tmp_path):
    for case in ("first", "second"):
        row = common.compare(turns([1.0] * 2, [2.0] * 2), "ours", "peer", case=case, target=1.5)
        path = common.save("speed", [row], tmp_path)
    with path.open(newline="") as file:
        assert [r["case"] for r in csv.DictReader(file)] == ["first", "second"]
    assert path.with_suffix(".png").stat().st_size > 1000
    text = "Before\n<!-- speed:begin speed -->\nold\n<!-- speed:end -->\nafter\n"
    new = readme.filled(text, tmp_path)
    assert "| second | peer | 2.00 | 2.00 to 2.00 | 2.00 | 2.00 | 1.5 |" in new
    assert "old" not in new
    assert readme.filled(new, tmp_path) == new
    # Rows of several machines name theirs.
    (tmp_path / "speed-other-8core.csv").write_bytes(path.read_bytes())
    both = readme.table(["speed"], tmp_path)
    assert both.count("| second, ") == 2
    assert f"| second, {common.machine()} | peer |" in both
    assert "| second, other-8core | peer |" in both


def test_growth_and_profiles_have_tables_of_their_own(tmp_path):
    head = "axis,value,milliseconds,time,macs,bytes,why\n"
    (tmp_path / "scaling-x-2core.csv").write_text(head + "batch,1,5,1,1,1,\nbatch,4,9,2,4,3,\n")
    assert "| batch | 1, 4 | 1, 2 | 1, 4 | 1, 3 |" in readme.table(["scaling"], tmp_path)
    head = "case,operation,calls,milliseconds,share,versions\n"
    rows = "net,MatMul,3,60,0.75,\nnet,all others,9,20,0.25,\n"
    (tmp_path / "train_step_profile-x-2core.csv").write_text(head + rows)
    table = readme.table(["train_step_profile"], tmp_path)
    assert "| net | 80 | MatMul 75% (3 calls), all others 25% (9 calls) |" in table


@pytest.mark.parametrize(("seconds", "failed"), [(1.2, False), (1.3, True)])
def test_the_check_fails_below_its_floor(tmp_path, monkeypatch, seconds, failed):
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    common.save(
        "x", [common.compare(turns([1.0] * 2, [2.0] * 2), "ours", "peer", case="x")], tmp_path
    )
    row = common.compare(turns([seconds] * 2, [2.0] * 2), "ours", "peer", case="x")
    table, found = check.verdict([row])
    assert found == failed
    assert ("BELOW x, ours against peer" in table) == failed


def test_the_first_page_names_one_row_for_each_headline_and_machine():
    # Mutation: a headline whose case was renamed, which drops its row.
    rows = iter(readme.table(["headlines"]).splitlines()[2:])
    for name, case, peer in readme.HEADLINES:
        machines = list(common.RESULTS.glob(f"{name}-*core.csv"))
        measured = [any(r["case"].startswith(case) for r in common.load(m)) for m in machines]
        assert any(measured)
        for _ in range(sum(measured)):
            row = next(rows)
            assert row.startswith(f"| {case}")
            assert f"| {peer} |" in row
            assert row.count("|") == 5
    assert not list(rows)


@pytest.mark.parametrize("document", ["README.md", "docs/performance.md", "docs/choosing.md"])
def test_numbers_in_documents_are_those_of_the_results(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    assert "<!-- speed:begin" in text
    assert readme.filled(text) == text, f"run: python benchmarks/readme.py {document}"
