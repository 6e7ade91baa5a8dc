"Measuring peers in processes; ratios, void rows, aims, table and file."
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from fcnet import benchmark
from fcnet.baselines import PEERS
from fcnet.benchmark import (AIMS, FULL_50, FULL_512, LIMITS, OURS, QUICK, SMALL, WIDE,
                             WORKLOADS, bench, by_round, fastest, load_rows, machine,
                             measure, missed, ratio, ratios, save_rows, table, void)

OUR = 'ours, Learner'
NEEDS = {'JAX, scan': 'jax', 'limit: products, JAX': 'jax', 'scikit-learn': 'sklearn'}

def row(peer, seconds=1., workload='w', round=0, loss=0.5, megabytes=1.):
    return dict(round=round, workload=workload, peer=peer, threads=2, seconds=seconds,
                loss=loss, megabytes=megabytes)

# ours takes 2 seconds, then 6; the other 4, then 6
MADE_UP = [row(OUR, 2.), row('NumPy', 4.), row(OUR, 6., round=1),
           row('NumPy', 6., round=1)]

@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    "No bars, and PyTorch's switch for products as it was."
    monkeypatch.setenv('TQDM_DISABLE', '1')
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)

class TestWorkloads:
    def test_their_names_are_those_of_the_stored_measurements(self):
        path = Path(__file__).parent.parent/'nbs'/'bench.csv'
        _, rows = load_rows(path)
        assert {r['workload'] for r in rows} == WORKLOADS.keys()

    def test_peers_are_known(self):
        for name, workload in WORKLOADS.items():
            assert set(workload.peers) <= PEERS.keys(), name
            assert len(set(workload.peers)) == len(workload.peers)

    def test_quick_ones_are_small(self):
        assert QUICK == [SMALL, FULL_50]
        assert all(WORKLOADS[name].n_hidden == 50 for name in QUICK)

    def test_micrograd_is_left_out_of_the_wide_network(self):
        assert 'micrograd' in WORKLOADS[SMALL].peers
        assert 'micrograd' not in WORKLOADS[WIDE].peers

    @pytest.mark.parametrize('name, n_hidden, n_out, bs, rows', [
        (SMALL, 50, 10, 64, 50_000), (WIDE, 800, 10, 128, 12_800),
        (FULL_50, 50, 1, 50_000, 50_000), (FULL_512, 512, 10, 20_000, 20_000)])
    def test_are_what_their_names_say(self, name, n_hidden, n_out, bs, rows):
        w = WORKLOADS[name]
        assert (w.n_hidden, w.n_out, w.bs, w.rows) == (n_hidden, n_out, bs, rows)

class TestMeasure:
    PAIRS = [(name, peer) for name, w in WORKLOADS.items() for peer in w.peers
             if peer not in ('tinygrad', 'micrograd', 'nn.Module, torch.compile')
             and not (name != SMALL and 'JAX' in peer)] # compiled in the small one

    @pytest.mark.parametrize('name, peer', PAIRS)
    def test_every_peer_has_our_loss_or_none(self, name, peer):
        if peer in NEEDS: pytest.importorskip(NEEDS[peer])
        found = measure(name, peer, rows=150, repeats=1) # a smaller last batch
        assert found['seconds'] > 0
        if peer.startswith('limit') or peer == 'scikit-learn':
            assert found['loss'] is None
        else:
            expected = measure(name, OUR, rows=150, repeats=1)['loss']
            most = 1e-2 if 'medium' in peer else 1e-3 # its products may be bfloat16
            assert abs(found['loss']/expected - 1) < most

    def test_seconds_are_the_median_of_the_runs(self, monkeypatch):
        ticks = iter([0., 5., 10., 11., 20., 23.]) # 5, 1 and 3 seconds
        monkeypatch.setattr(benchmark, 'perf_counter', lambda: next(ticks))
        assert measure(SMALL, 'limit: products, torch', rows=10)['seconds'] == 3

    def test_runs_once_to_warm_up_and_returns_that_loss(self, monkeypatch):
        class Peer:
            seen = []
            def __init__(self, job): pass
            def epoch(self, i):
                self.seen.append(i)
                return 10. + i
        monkeypatch.setitem(benchmark.PEERS, 'NumPy', Peer)
        assert measure(SMALL, 'NumPy', rows=10, repeats=2)['loss'] == 10
        assert Peer.seen == [0, 1, 2]

    def test_micrograd_is_timed_as_if_it_had_read_all_digits(self, monkeypatch):
        class Peer:
            def __init__(self, job): pass
            def epoch(self, i): pass
        ticks = iter([0., 2.])
        monkeypatch.setattr(benchmark, 'perf_counter', lambda: next(ticks))
        monkeypatch.setitem(benchmark.PEERS, 'micrograd', Peer)
        assert measure(SMALL, 'micrograd', rows=10, repeats=1)['seconds'] == 20

    def test_memory_is_what_an_epoch_takes_beyond_the_job(self, monkeypatch):
        if not Path('/proc/self/clear_refs').exists(): pytest.skip('not on Linux')
        class Peer:
            def __init__(self, job): self.fill(200) # held for a moment, before it counts
            def fill(self, megabytes): torch.ones(megabytes, 2**18).sum()
            def epoch(self, i): self.fill(200 if i == 0 else 50)
        monkeypatch.setitem(benchmark.PEERS, 'NumPy', Peer)
        found = measure(SMALL, 'NumPy', rows=10, repeats=1)
        assert 40 < found['megabytes'] < 150

    def test_off_linux_no_memory_is_told(self, monkeypatch):
        monkeypatch.setattr(benchmark, '_peak_memory', lambda reset=False: None)
        assert measure(SMALL, 'NumPy', rows=10, repeats=1)['megabytes'] is None

    def test_rejects_unknown_names(self):
        with pytest.raises(ValueError, match="measure: workload is 'w', expected one"):
            measure('w', 'NumPy')
        with pytest.raises(ValueError, match="measure: peer is 'x', expected one of"):
            measure(SMALL, 'x')

class TestProcesses:
    @pytest.mark.processes
    def test_a_peer_in_its_own_process(self):
        done = benchmark._start(SMALL, 'NumPy', 150, 1, 1)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout.splitlines()[-1])
        assert found['seconds'] > 0
        expected = measure(SMALL, OUR, rows=150, repeats=1)['loss']
        assert abs(found['loss']/expected - 1) < 1e-4

    def test_what_the_process_is_told(self, monkeypatch):
        calls = []
        def run(command, env, **options):
            calls.append((command, env))
            return 'ended'
        monkeypatch.setattr(subprocess, 'run', run)
        assert benchmark._start(SMALL, 'NumPy', 150, 4, 3) == 'ended'
        (python, _, code, *words), env = calls[0]
        assert python == sys.executable and 'fcnet.benchmark' in code
        assert words == [SMALL, 'NumPy', '150', '4', '3']
        for name in ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS'):
            assert env[name] == '3'
        assert env['TQDM_DISABLE'] == '1' and env['PATH'] == os.environ['PATH']

    def test_what_the_process_does(self, monkeypatch, capsys):
        asked = []
        monkeypatch.setattr(os, 'sched_getaffinity', lambda pid: {3, 1, 2},
                            raising=False)
        monkeypatch.setattr(os, 'sched_setaffinity',
                            lambda pid, cores: asked.append(cores), raising=False)
        monkeypatch.setattr(benchmark, 'measure', lambda *args: list(args))
        monkeypatch.setattr(sys, 'argv', ['-c', SMALL, 'NumPy', '150', '4', '2'])
        benchmark._child()
        assert json.loads(capsys.readouterr().out) == [SMALL, 'NumPy', 150, 4]
        assert asked == [[1, 2]] # as many cores as threads

class TestBench:
    @pytest.fixture
    def started(self, monkeypatch):
        "The processes that are started, none of which is real."
        started = []
        def start(workload, peer, *options):
            started.append((workload, peer, *options))
            failed = peer == 'tinygrad'
            found = '{"seconds": 2.0, "loss": 0.5, "megabytes": null}'
            return SimpleNamespace(returncode=int(failed), stderr='a\nno compiler\n',
                                   stdout=f'some words\n{found}\n')
        monkeypatch.setattr(benchmark, '_start', start)
        return started

    def test_peers_take_turns(self, started):
        found = bench(2, workloads=[SMALL], peers=[OUR, 'NumPy'])
        assert [(r['round'], r['peer']) for r in found] == [
            (0, OUR), (0, 'NumPy'), (1, OUR), (1, 'NumPy')]
        assert found[0] == row(OUR, 2., SMALL, megabytes=None)
        assert {r['threads'] for r in bench(1, 3, workloads=[FULL_50])} == {3}

    def test_hands_on_its_options(self, started):
        bench(1, 7, 30, 9, [SMALL], [OUR])
        bench(1, workloads=[SMALL], peers=[OUR])
        assert started == [(SMALL, OUR, 30, 9, 7), (SMALL, OUR, 0, 2, 2)]

    def test_measures_everything_five_times_by_default(self, started):
        found = bench(peers=['NumPy'])
        assert {r['round'] for r in found} == set(range(5))
        with_numpy = [name for name, w in WORKLOADS.items() if 'NumPy' in w.peers]
        assert list(dict.fromkeys(w for w, *_ in started)) == with_numpy

    def test_measures_only_the_peers_of_a_workload(self, started):
        bench(1, workloads=[FULL_50])
        assert [peer for _, peer, *_ in started] == WORKLOADS[FULL_50].peers

    def test_micrograd_is_measured_once(self, started):
        bench(3, workloads=[SMALL], peers=['NumPy', 'micrograd'])
        assert [peer for _, peer, *_ in started].count('micrograd') == 1
        assert len(started) == 4

    def test_names_a_peer_that_fails_and_leaves_it_out(self, started, capsys):
        found = bench(2, workloads=[SMALL, WIDE], peers=['NumPy', 'tinygrad'])
        assert capsys.readouterr().out == 'left out: tinygrad (no compiler)\n'
        assert [r['peer'] for r in found] == ['NumPy']*4
        assert [peer for _, peer, *_ in started].count('tinygrad') == 1

    @pytest.mark.processes
    def test_the_reason_of_a_process_that_fails(self, monkeypatch, capsys):
        workload = WORKLOADS[SMALL]._replace(peers=['broken'])
        monkeypatch.setitem(WORKLOADS, SMALL, workload)
        assert bench(1, rows=10, workloads=[SMALL], peers=['broken']) == []
        assert capsys.readouterr().out.startswith(
            "left out: broken (ValueError: measure: peer is 'broken', expected one of")

    @pytest.mark.parametrize('options, match', [
        (dict(rounds=0), 'bench: rounds is 0, expected an integer, at least 1'),
        (dict(threads=0), 'bench: threads is 0'),
        (dict(repeats=0), 'bench: repeats is 0'),
        (dict(workloads=['w']), "bench: workload is 'w', expected one of")])
    def test_rejects(self, options, match, started):
        with pytest.raises(ValueError, match=match): bench(**options)
        assert started == []

class TestRatio:
    def test_rounds_without_a_value_are_left_out(self):
        rows = [*MADE_UP, row('NumPy', None, round=2),
                row('NumPy', 9., 'other', round=3)]
        assert by_round(rows, 'w', 'NumPy') == {0: 4., 1: 6.}
        assert by_round(rows, 'w', 'NumPy', 'loss') == {0: 0.5, 1: 0.5, 2: 0.5}
        assert by_round(rows, 'w', 'JAX, scan') == {}

    def test_is_taken_within_a_round(self):
        assert ratios(MADE_UP, 'w', [OUR], ['NumPy']) == [0.5, 1]
        assert ratio(MADE_UP, 'w', [OUR], ['NumPy']) == 0.75

    def test_the_fastest_by_its_median_counts_in_all_rounds(self):
        rows = [*MADE_UP, row('JAX, scan', 1.), row('JAX, scan', 8., round=1)]
        assert fastest(rows, 'w', ['NumPy', 'JAX, scan']) == 'JAX, scan' # 4.5, not 5
        assert ratios(rows, 'w', [OUR], ['NumPy', 'JAX, scan']) == [2, 0.75]
        assert fastest(rows, 'w', ['tinygrad', 'NumPy']) == 'NumPy'
        assert fastest(rows, 'w', ['tinygrad']) is None
        assert fastest(rows, 'w', []) is None

    def test_only_rounds_of_both_sides_count(self):
        rows = [*MADE_UP, row(OUR, 100., round=2), row('NumPy', 1., round=3)]
        assert ratio(rows, 'w', [OUR], ['NumPy']) == 0.75

    def test_none_if_a_side_was_not_measured(self):
        assert ratio(MADE_UP, 'w', [OUR], ['JAX, scan']) is None
        assert ratio(MADE_UP, 'w', ['JAX, scan'], [OUR]) is None
        assert ratio(MADE_UP, 'w', [], ['NumPy']) is None
        assert ratio(MADE_UP, 'other', [OUR], ['NumPy']) is None

    def test_of_another_column(self):
        rows = [row(OUR, megabytes=3.), row('NumPy', megabytes=2.)]
        assert ratio(rows, 'w', [OUR], ['NumPy'], 'megabytes') == 1.5
        rows = [row(OUR, megabytes=3.), row('NumPy', megabytes=0.)]
        assert ratio(rows, 'w', [OUR], ['NumPy'], 'megabytes') is None

class TestVoid:
    @pytest.mark.parametrize('loss, expected', [
        (0.5, []), (0.50049, []), (0.49951, []),
        (0.5006, ['NumPy']), (0.4994, ['NumPy']),
        (math.nan, ['NumPy']), (math.inf, ['NumPy'])])
    def test_another_loss_is_void(self, loss, expected):
        assert void([row(OUR), row('NumPy', loss=loss)], 'w') == expected

    def test_one_round_is_enough(self):
        rows = [*MADE_UP, row(OUR, round=2), row('NumPy', loss=0.6, round=2)]
        assert void(rows, 'w') == ['NumPy']

    def test_no_loss_is_not_another_loss(self):
        assert void([row(OUR), row('scikit-learn', loss=None)], 'w') == []

    def test_without_ours_there_is_nothing_to_compare(self):
        assert void([row('NumPy'), row('JAX, scan', loss=9.)], 'w') == []
        assert void([row('NumPy', loss=math.nan)], 'w') == ['NumPy']

    def test_negative_losses_are_compared_by_size(self):
        assert void([row(OUR, loss=-0.5), row('NumPy', loss=-0.5001)], 'w') == []

class TestMissed:
    @pytest.mark.parametrize('seconds, n', [(0.91, 0), (0.92, 0), (0.96, 1)])
    def test_an_aim(self, seconds, n):
        rows = [row(OUR, seconds, SMALL), row('NumPy', 1., SMALL)]
        lines = missed(rows)
        assert len(lines) == n
        if n: assert lines == [f'{SMALL}: ours takes 0.96 of NumPy in seconds, '
                               'the aim is 0.92']

    def test_an_aim_for_memory(self):
        rows = [row(OUR, 0.5, FULL_512, megabytes=9.),
                row('nn.Module, bare loop', 1., FULL_512, megabytes=10.)]
        assert missed(rows) == [f'{FULL_512}: ours takes 0.90 of nn.Module, bare loop '
                                'in megabytes, the aim is 0.80']

    def test_a_void_row_meets_and_misses_no_aim(self):
        rows = [row(OUR, 9., SMALL, loss=1.), row('NumPy', 1., SMALL, loss=1.01)]
        assert missed(rows) == []

    def test_aims_are_about_what_is_measured(self):
        assert len(AIMS) == 11 and OURS == [OUR]
        for aim in AIMS:
            peers = WORKLOADS[aim.workload].peers
            assert set(aim.theirs) <= set(peers) and OUR in peers
            assert 0 < aim.most < 2 and (aim.stretch or 0) < aim.most
        assert (SMALL, ['NumPy'], 0.92, 0.85, 'seconds') in AIMS
        assert (WIDE, LIMITS, 1.12, 1.06, 'seconds') in AIMS

class TestTable:
    def test_the_shorter_one_first(self):
        head, ours, theirs = table(MADE_UP).splitlines()
        assert head == f'{"w":30}  seconds   least    most      MB   ours takes'
        assert ours.split() == [*OUR.split(), *'4 2 6 1 1.00 (1.00 to 1.00)'.split()]
        assert theirs.split() == ['NumPy', *'5 4 6 1 0.75 (0.50 to 1.00)'.split()]

    def test_void_rows_are_marked(self):
        text = table([row(OUR), row('NumPy', loss=0.6)])
        assert [('void: another loss' in line) for line in text.splitlines()] == [
            False, False, True]

    def test_without_ours_there_is_no_share(self):
        assert table([row('NumPy')]).splitlines()[1].split() == ['NumPy', *'1111']
        without = table([row('NumPy', megabytes=None)])
        assert without.splitlines()[1].split() == ['NumPy', *'111']

    def test_a_part_for_each_workload(self):
        rows = [*MADE_UP, row('NumPy', workload='v')]
        parts = table(rows).split('\n\n')
        assert [part.split()[0] for part in parts] == ['w', 'v']

class TestFile:
    def test_comes_back_as_it_was(self, in_tmp):
        rows = [*MADE_UP, row('scikit-learn', loss=None, megabytes=None)]
        save_rows('b.csv', rows)
        assert load_rows('b.csv') == (machine(), rows)

    def test_is_a_comment_and_a_table(self, in_tmp):
        save_rows('b.csv', MADE_UP)
        first, second, *others = Path('b.csv').read_text().splitlines()
        assert first == f'# {machine()}'
        assert second == 'round,workload,peer,threads,seconds,loss,megabytes'
        assert len(others) == 4

    def test_rejects_no_measurements(self, in_tmp):
        with pytest.raises(ValueError, match='b.csv: there are no measurements'):
            save_rows('b.csv', [])
        assert not Path('b.csv').exists()

    def test_the_stored_measurements_are_not_void(self):
        _, rows = load_rows(Path(__file__).parent.parent/'nbs'/'bench.csv')
        assert all(void(rows, name) == [] for name in WORKLOADS)
        assert rows and all(type(r['seconds']) is float for r in rows)
        assert type(rows[0]['round']) is int and type(rows[0]['threads']) is int

class TestMachine:
    def test_names_what_is_compared(self):
        line = machine()
        assert f'torch {torch.__version__}'.split('+')[0] in line
        assert f'{os.cpu_count()} CPU cores' in line
        assert torch.backends.cpu.get_cpu_capability() in line
        assert re.search(r'torch [\w.+]+ with \w+, numpy [\w.]+ with \w+', line)
        assert f'Python {sys.version.split()[0]}' in line
        for name in ('numpy', 'jax', 'scikit-learn', 'tinygrad', 'micrograd'):
            assert name in line

    def test_a_library_that_is_missing(self, monkeypatch):
        def version(name):
            if name == 'jax': raise benchmark.PackageNotFoundError(name)
            return '1.2'
        monkeypatch.setattr(benchmark, 'version', version)
        assert 'no jax, scikit-learn 1.2, tinygrad 1.2' in machine()

    def test_the_name_of_the_processor(self, tmp_path, monkeypatch):
        info = tmp_path/'cpuinfo'
        monkeypatch.setattr(benchmark, 'Path', lambda path: info)
        monkeypatch.setattr(benchmark.platform, 'processor', lambda: 'some chip')
        assert machine().startswith('some chip, ') # no such file
        info.write_text('processor : 0\nmodel name\t: Fast One 3000\n')
        assert machine().startswith('Fast One 3000, ')
        info.write_text('processor : 0\n')
        assert machine().startswith('some chip, ')
