"Measuring peers in processes; ratios, void rows, aims, table and file."
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from fcnet import benchmark
from fcnet.baselines import PEERS, make_job
from fcnet.benchmark import (AIMS, BEST, BEST_LIMITS, FULL_50, FULL_512, IMPORTS,
                             LIMITS, OURS, QUICK, SMALL, WIDE, WORKLOADS, bench,
                             by_round, load_rows, machine, measure, missed, ratio,
                             save_rows, table, void)

LOOP = 'ours, plain loop'
NEEDS = {'JAX, scan': 'jax', 'limit: products, JAX': 'jax', 'scikit-learn': 'sklearn'}

def row(peer, seconds=1., workload='w', round=0, loss=0.5, megabytes=1.):
    return dict(round=round, workload=workload, peer=peer, seconds=seconds, loss=loss,
                megabytes=megabytes)

# ours takes 2 seconds, then 6; the other 4, then 6
MADE_UP = [row(LOOP, 2.), row('NumPy', 4.), row(LOOP, 6., round=1),
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
        names = {r['workload'].removesuffix(', from start') for r in rows}
        assert names == WORKLOADS.keys()

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

    @pytest.mark.parametrize('name, task, n_hidden, n_out, bs, rows', [
        (SMALL, 'epoch', 50, 10, 64, 50_000), (WIDE, 'epoch', 800, 10, 128, 50_000),
        (FULL_50, 'full', 50, 1, 64, 50_000), (FULL_512, 'full', 512, 10, 64, 50_000),
        ('10,000 digits read', 'predict', 50, 10, 64, 10_000),
        ('one digit read', 'predict', 50, 10, 64, 1),
        ('to 97.5 %, 784-100-10', 'reach', 100, 10, 64, 50_000)])
    def test_are_what_their_names_say(self, name, task, n_hidden, n_out, bs, rows):
        w = WORKLOADS[name]
        found = w.task, w.n_hidden, w.n_out, w.bs, w.rows
        assert found == (task, n_hidden, n_out, bs, rows)

class TestMeasure:
    PAIRS = [(name, peer) for name, w in WORKLOADS.items() for peer in w.peers
             if w.task in ('epoch', 'full', 'predict')
             and peer not in ('tinygrad', 'micrograd', 'nn.Module, torch.compile')
             and not (name == WIDE and 'JAX' in peer)] # compiled in the small one

    @pytest.mark.parametrize('name, peer', PAIRS)
    def test_every_peer_has_our_loss_or_none(self, name, peer):
        if peer in NEEDS: pytest.importorskip(NEEDS[peer])
        rows = 30 if WORKLOADS[name].task == 'predict' else 150 # a smaller last batch
        found = measure(name, peer, rows=rows, repeats=1)
        assert found['seconds'] > 0
        if peer.startswith('limit') or peer in ('NumPy, notebook 07', 'scikit-learn'):
            assert found['loss'] is None
        else:
            expected = measure(name, LOOP, rows=rows, repeats=1)['loss']
            most = 1e-2 if 'medium' in peer else 1e-3 # its products may be bfloat16
            assert abs(found['loss']/expected - 1) < most

    def test_seconds_are_the_median_of_the_runs(self, monkeypatch):
        ticks = iter([0., 5., 10., 11., 20., 23.]) # 5, 1 and 3 seconds
        monkeypatch.setattr(benchmark, 'perf_counter', lambda: next(ticks))
        assert measure(SMALL, 'limit: rows alone', rows=10)['seconds'] == 3

    def test_short_runs_are_timed_many_at_once(self, monkeypatch):
        ticks = iter([0., 500.])
        monkeypatch.setattr(benchmark, 'perf_counter', lambda: next(ticks))
        found = measure('10,000 digits read', LOOP, rows=4000, repeats=1)
        assert found['seconds'] == 100 # 20,000 digits

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

    def test_memory_is_what_a_run_takes_beyond_what_was_held(self, monkeypatch):
        if not Path('/proc/self/clear_refs').exists(): pytest.skip('not on Linux')
        class Peer:
            def __init__(self, job): self.fill(60) # held for a moment, before it counts
            def fill(self, megabytes): torch.ones(megabytes, 2**18).sum()
            def epoch(self, i):
                if i > 0: self.fill(30)
        monkeypatch.setitem(benchmark.PEERS, 'NumPy', Peer)
        found = measure(SMALL, 'NumPy', rows=10, repeats=1)
        assert 0 <= found['megabytes'] < 50

    def test_off_linux_no_memory_is_told(self, monkeypatch):
        monkeypatch.setattr(benchmark, '_peak_memory', lambda: None)
        assert measure(SMALL, 'NumPy', rows=10, repeats=1)['megabytes'] is None

    def test_rejects_unknown_names(self):
        with pytest.raises(ValueError, match="measure: workload is 'w', expected one"):
            measure('w', 'NumPy')
        with pytest.raises(ValueError, match="measure: peer is 'x', expected one of"):
            measure(SMALL, 'x')

class TestReach:
    job = make_job(5, rows=10)

    def peer(self, shares):
        "One that reads these shares of the digits correctly, epoch by epoch."
        done = []
        def scores(x):
            right = round(shares[len(done)-1]*len(x))
            answers = [y if i < right else (y+1) % 10
                       for i, y in enumerate(self.job.y_valid[:len(x)])]
            return torch.eye(10)[answers].numpy()
        return SimpleNamespace(epoch=done.append, scores=scores, done=done)

    def test_ends_when_the_share_is_reached(self):
        peer = self.peer([0.1, 0.9749, 0.975, 1.])
        assert 0 < benchmark._seconds_to_reach(peer, self.job) < 60
        assert peer.done == [0, 1, 2]

    def test_fails_after_fifty_epochs(self):
        peer = self.peer([0.9]*50)
        job = self.job._replace(x_valid=self.job.x_valid[:100],
                                y_valid=self.job.y_valid[:100])
        with pytest.raises(RuntimeError, match='97.5% not reached in 50 epochs'):
            benchmark._seconds_to_reach(peer, job)
        assert len(peer.done) == 50

    def test_measure_gives_the_seconds_alone(self, monkeypatch):
        monkeypatch.setattr(benchmark, '_seconds_to_reach', lambda peer, job: 7.)
        assert measure('to 97.5 %, 784-100-10', 'NumPy', rows=10) == {'seconds': 7.}

class TestProcesses:
    @pytest.mark.processes
    def test_a_peer_in_its_own_process(self):
        done, seconds = benchmark._start(SMALL, 'NumPy', 150, 1, 1)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout.splitlines()[-1])
        assert 0 < found['seconds'] < seconds
        expected = measure(SMALL, LOOP, rows=150, repeats=1)['loss']
        assert abs(found['loss']/expected - 1) < 1e-4

    def test_a_process_that_only_imports(self):
        found, = bench(1, workloads=['import'], peers=['NumPy'])
        assert 0 < found['seconds'] < 60
        assert found['loss'] is None and found['megabytes'] is None

    def test_what_the_process_is_told(self, monkeypatch):
        calls = []
        def run(command, env, **options):
            calls.append((command, env))
            return 'ended'
        monkeypatch.setattr(subprocess, 'run', run)
        done, seconds = benchmark._start(SMALL, 'NumPy', 150, 4, 3)
        assert done == 'ended' and seconds >= 0
        (python, _, code, *words), env = calls[0]
        assert python == sys.executable and 'fcnet.benchmark' in code
        assert words == [SMALL, 'NumPy', '150', '4', '3']
        for name in ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS'):
            assert env[name] == '3'
        assert env['TQDM_DISABLE'] == '1' and env['PATH'] == os.environ['PATH']
        benchmark._start('import', 'JAX, scan', 0, 1, 1)
        assert calls[1][0][2].startswith(f'import {IMPORTS["JAX, scan"]};')

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
            done = SimpleNamespace(returncode=int(failed), stderr='a\nno compiler\n',
                                   stdout='some words\n{"seconds": 2.0, "loss": 0.5}\n')
            return done, 5.
        monkeypatch.setattr(benchmark, '_start', start)
        return started

    def test_peers_take_turns(self, started):
        found = bench(2, workloads=[SMALL], peers=[LOOP, 'NumPy'])
        assert [(r['round'], r['peer']) for r in found] == [
            (0, LOOP), (0, 'NumPy'), (1, LOOP), (1, 'NumPy')]
        assert found[0] == row(LOOP, 2., SMALL, megabytes=None)

    def test_hands_on_its_options(self, started):
        bench(1, 7, 30, 9, [SMALL], [LOOP])
        bench(1, workloads=[SMALL], peers=[LOOP])
        assert started == [(SMALL, LOOP, 30, 9, 7), (SMALL, LOOP, 0, 3, 2)]

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

    def test_training_to_a_share_is_timed_from_the_start_as_well(self, started):
        name = 'to 97.5 %, 784-100-10'
        found = bench(1, workloads=[name], peers=['NumPy'])
        assert [(r['workload'], r['seconds']) for r in found] == [
            (name, 2.), (f'{name}, from start', 5.)]
        assert found[1]['loss'] is None

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
        assert ratio(MADE_UP, 'w', [LOOP], ['NumPy']) == 0.75

    def test_the_better_of_each_side_counts(self):
        rows = [*MADE_UP, row('ours, Learner', 1.), row('JAX, scan', 2.)]
        assert ratio(rows, 'w', OURS, ['NumPy']) == (0.25 + 1)/2
        assert ratio(rows, 'w', [LOOP], ['NumPy', 'JAX, scan']) == 1

    def test_only_rounds_of_both_sides_count(self):
        rows = [*MADE_UP, row(LOOP, 100., round=2), row('NumPy', 1., round=3)]
        assert ratio(rows, 'w', [LOOP], ['NumPy']) == 0.75

    def test_none_if_a_side_was_not_measured(self):
        assert ratio(MADE_UP, 'w', [LOOP], ['JAX, scan']) is None
        assert ratio(MADE_UP, 'w', ['JAX, scan'], [LOOP]) is None
        assert ratio(MADE_UP, 'w', [], ['NumPy']) is None
        assert ratio(MADE_UP, 'other', [LOOP], ['NumPy']) is None

    def test_of_another_column(self):
        rows = [row(LOOP, megabytes=3.), row('NumPy', megabytes=2.)]
        assert ratio(rows, 'w', [LOOP], ['NumPy'], 'megabytes') == 1.5
        rows = [row(LOOP, megabytes=3.), row('NumPy', megabytes=0.)]
        assert ratio(rows, 'w', [LOOP], ['NumPy'], 'megabytes') is None

class TestVoid:
    @pytest.mark.parametrize('loss, expected', [
        (0.5, []), (0.50049, []), (0.49951, []),
        (0.5006, ['NumPy']), (0.4994, ['NumPy']),
        (math.nan, ['NumPy']), (math.inf, ['NumPy'])])
    def test_another_loss_is_void(self, loss, expected):
        assert void([row(LOOP), row('NumPy', loss=loss)], 'w') == expected

    def test_one_round_is_enough(self):
        rows = [*MADE_UP, row(LOOP, round=2), row('NumPy', loss=0.6, round=2)]
        assert void(rows, 'w') == ['NumPy']

    def test_no_loss_is_not_another_loss(self):
        assert void([row(LOOP), row('scikit-learn', loss=None)], 'w') == []

    def test_without_ours_there_is_nothing_to_compare(self):
        assert void([row('NumPy'), row('JAX, scan', loss=9.)], 'w') == []
        assert void([row('NumPy', loss=math.nan)], 'w') == ['NumPy']

    def test_negative_losses_are_compared_by_size(self):
        assert void([row(LOOP, loss=-0.5), row('NumPy', loss=-0.5001)], 'w') == []

class TestMissed:
    @pytest.mark.parametrize('seconds, n', [(0.94, 0), (0.95, 0), (0.96, 1)])
    def test_an_aim(self, seconds, n):
        rows = [row('ours, Learner', seconds, SMALL), row('NumPy', 1., SMALL)]
        lines = missed(rows)
        assert len(lines) == n
        if n: assert lines == [f'{SMALL}: {LOOP} or ours, Learner takes 0.96 of NumPy, '
                               'the aim is 0.95']

    def test_a_void_row_meets_and_misses_no_aim(self):
        rows = [row(LOOP, 9., SMALL, loss=1.), row('NumPy', 1., SMALL, loss=1.01)]
        assert missed(rows) == []

    def test_aims_are_about_what_is_measured(self):
        assert len(AIMS) == 15
        for aim in AIMS:
            peers = WORKLOADS[aim.workload].peers
            assert set(aim.theirs) & set(peers) and set(aim.ours) & set(peers)
            assert set(aim.ours) | set(aim.theirs) <= PEERS.keys()
            assert 0 < aim.most < 2
        assert (SMALL, OURS, ['NumPy'], 0.95) in AIMS
        assert (FULL_512, BEST, BEST_LIMITS, 1.25) in AIMS
        assert set(LIMITS) < set(BEST_LIMITS) and set(OURS) < set(BEST)

class TestTable:
    def test_the_shorter_one_first(self):
        head, ours, theirs = table(MADE_UP).splitlines()
        assert head == f'{"w":30}  seconds   least    most   ours takes'
        assert ours.split() == [*LOOP.split(), '4', '2', '6', '1.00', '#'*18]
        assert theirs.split() == ['NumPy', '5', '4', '6', '0.75', '#'*22]

    def test_void_rows_are_marked(self):
        text = table([row(LOOP), row('NumPy', loss=0.6)])
        assert [('void: another loss' in line) for line in text.splitlines()] == [
            False, False, True]

    def test_without_ours_there_is_no_share(self):
        assert table([row('NumPy')]).splitlines()[1].split() == [
            'NumPy', '1', '1', '1', '#'*20]

    def test_a_part_for_each_workload(self):
        rows = [*MADE_UP, row('NumPy', workload='v')]
        parts = table(rows).split('\n\n')
        assert [part.split()[0] for part in parts] == ['w', 'v']

    def test_bars_are_cut_and_micrograd_sets_no_scale(self):
        lines = table([*MADE_UP, row('micrograd', 1000.)]).splitlines()
        assert [line.count('#') for line in lines] == [0, 18, 22, 40]
        assert table([row('micrograd', 1000.)]).count('#') == 40

class TestFile:
    def test_comes_back_as_it_was(self, in_tmp):
        rows = [*MADE_UP, row('scikit-learn', loss=None, megabytes=None)]
        save_rows('b.csv', rows)
        assert load_rows('b.csv') == (machine(), rows)

    def test_is_a_comment_and_a_table(self, in_tmp):
        save_rows('b.csv', MADE_UP)
        first, second, *others = Path('b.csv').read_text().splitlines()
        assert first == f'# {machine()}'
        assert second == 'round,workload,peer,seconds,loss,megabytes'
        assert len(others) == 4

    def test_rejects_no_measurements(self, in_tmp):
        with pytest.raises(ValueError, match='b.csv: there are no measurements'):
            save_rows('b.csv', [])
        assert not Path('b.csv').exists()

    def test_the_stored_measurements_are_not_void(self):
        _, rows = load_rows(Path(__file__).parent.parent/'nbs'/'bench.csv')
        assert all(void(rows, name) == [] for name in WORKLOADS)
        assert len(rows) > 100 and all(type(r['seconds']) is float for r in rows)
        assert type(rows[0]['round']) is int

class TestMachine:
    def test_names_what_is_compared(self):
        line = machine()
        assert f'torch {torch.__version__}'.split('+')[0] in line
        assert f'{os.cpu_count()} CPU cores' in line
        assert f'Python {sys.version.split()[0]}' in line
        for name in ('numpy', 'jax', 'scikit-learn', 'tinygrad', 'micrograd'):
            assert name in line

    def test_a_library_that_is_missing(self, monkeypatch):
        def version(name):
            if name == 'jax': raise benchmark.PackageNotFoundError(name)
            return '1.2'
        monkeypatch.setattr(benchmark, 'version', version)
        assert 'numpy 1.2, no jax, scikit-learn 1.2' in machine()

    def test_the_name_of_the_processor(self, tmp_path, monkeypatch):
        info = tmp_path/'cpuinfo'
        monkeypatch.setattr(benchmark, 'Path', lambda path: info)
        monkeypatch.setattr(benchmark.platform, 'processor', lambda: 'some chip')
        assert machine().startswith('some chip, ') # no such file
        info.write_text('processor : 0\nmodel name\t: Fast One 3000\n')
        assert machine().startswith('Fast One 3000, ')
        info.write_text('processor : 0\n')
        assert machine().startswith('some chip, ')
