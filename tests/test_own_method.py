"""Methods of one's own: what is accepted, what is refused with which sentence, and that whatever runs a method runs
these: processes, seeds, a run that goes on, a changed file."""
import copy
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import RidgeClassifier
from sklearn.neighbors import NearestCentroid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC
from warm import warm

from mpfnet.cli import main
from mpfnet.folds import Fold
from mpfnet.loso import run
from mpfnet.methods import Context, code_deciding, fit
from mpfnet.own_method import as_method, class_scores, own
from mpfnet.tools import check_method as checking
from mpfnet.tools.check_method import check_method, failed_checks

TWELVE = '''
import numpy as np
from beside import SMALL

class Mine:
    "The class whose mean picture is nearest."
    def fit(self, fold):
        x, y = self.flat(fold.X()), fold.y.numpy()
        self.scale = x.std(0) + SMALL
        self.means = np.stack([(x[y == k]/self.scale).mean(0) for k in range(fold.n_classes)])
    def flat(self, x): return np.asarray(x).reshape(len(x), -1)
    def scores(self, x): return -np.square((self.flat(x)/self.scale)[:, None] - self.means).mean(2)
    def state(self): return dict(scale=self.scale, means=self.means)
'''

#: versions of it, and the check that each of them fails
VARIANTS = {
    'leakage': '''
class Attribute(Mine):
    def fit(self, fold):
        super().fit(fold)
        self.scale = self.scale + fold._features.std()
class Collected(Mine):
    def fit(self, fold):
        super().fit(fold)
        whole = next(o for o in gc.get_objects() if isinstance(o, Fold))
        self.scale = self.scale + float(np.asarray(whole._features, float).std())
class Frames(Mine):
    def fit(self, fold):
        super().fit(fold)
        at = sys._getframe()
        while not isinstance(at.f_locals.get('fold'), Fold): at = at.f_back
        self.scale = self.scale + float(at.f_locals['fold']._clips['label'].to_numpy() @ np.arange(90))
class Worker(Mine):
    def fit(self, fold):
        super().fit(fold)
        h = getattr(processes, '_harness')
        self.scale = self.scale + (float(np.asarray(h.data.open(), float).std()) if h else 0)''',
    'predicting': '''
class Counts(Mine):
    seen = 0
    def scores(self, x):
        self.seen += len(x)
        return super().scores(x)
class Adapts(Mine):
    def scores(self, x):
        self.scale = self.scale*1.01
        return super().scores(x)
class Writes(Mine):
    seen = []
    def scores(self, x):
        self.seen.append(len(x))
        return super().scores(x)''',
    'determinism': '''
class Numpy(Mine):
    def fit(self, fold):
        super().fit(fold)
        self.means = self.means + np.random.default_rng().normal(size=self.means.shape)
class Torch(Mine):
    def fit(self, fold):
        super().fit(fold)
        self.means = self.means + torch.randn(self.means.shape).numpy()''',
    'state': '''
class Forgets(Mine):
    def state(self): return dict(scale=self.scale)
class InAList(Mine):
    def fit(self, fold):
        super().fit(fold)
        self.kept = [dict(shift=float(self.means[0].mean()))]
    def scores(self, x): return super().scores(x) + self.kept[0]['shift']*np.arange(3)
class InTheClass(Mine):
    def fit(self, fold):
        super().fit(fold)
        type(self).shift = float(self.means[0].mean())
    def scores(self, x): return super().scores(x) + self.shift*np.arange(3)
class Empty(Mine):
    def state(self): return {}
class Encloses(Mine):
    def fit(self, fold):
        super().fit(fold)
        k = float(self.means[0].mean())
        self.shift = lambda: k*np.arange(3)*100
    def scores(self, x): return super().scores(x) + self.shift()''',
    'alone': '''
class Centres(Mine):
    def scores(self, x): return super().scores(x - x.mean(0))
class Places(Mine):
    def scores(self, x): return super().scores(x) + 9*np.eye(3)[np.arange(len(x))*3//len(x)]''',
    'order': '''
class Gathers(Mine):
    seen = {}
    def fit(self, fold):
        super().fit(fold)
        self.seen[fold.held_out[0][1]] = self.means
        self.means = sum(self.seen[k] for k in sorted(self.seen))
class File(Mine):
    def fit(self, fold):
        super().fit(fold)
        from pathlib import Path
        file, mine = Path(__file__).with_name('seen.txt'), set(fold.clips['clip'])
        seen = set(file.read_text().split()) if file.exists() else set()
        file.write_text(' '.join(seen | mine))
        self.means = self.means + len(seen - mine)''',
    'names': '''
class Reads(Mine):
    def fit(self, fold):
        super().fit(fold)
        whole = next(o for o in gc.get_objects() if isinstance(o, Fold))
        self.scale = self.scale + len(''.join(whole._clips['clip']))''',
    'scores': '''
class Nan(Mine):
    def scores(self, x): return super().scores(x)*np.nan
class Flat(Mine):
    def scores(self, x): return super().scores(x)[:, 0]''',
    'fits': '''
class Breaks(Mine):
    def fit(self, fold): return 1/0
class Lists(Mine):
    def state(self): return [self.means]
class Texts(Mine):
    def state(self): return dict(scale='wide', means=self.means)
class Ends(Mine):
    def fit(self, fold): sys.exit(0)
class Replaces(Mine):
    def fit(self, fold):
        super().fit(fold)
        Fold.test_features = lambda self: torch.zeros(15, *self.shape)''',
    'learns': '''
class Constant(Mine):
    def fit(self, fold): self.means, self.scale = np.zeros((3, 1)), np.ones(1)
class Blind(Mine):
    def fit(self, fold): self.means, self.scale = self.flat(fold.X())[:3], np.ones(1)
class Again(Mine):
    def fit(self, fold):
        if not found: super().fit(fold); found.append((self.scale, self.means))
        self.scale, self.means = found[0]''',
}
#: other checks that they fail, and rightly
ALSO = dict(Worker=['resume'])
WHO = [(check, name) for check, text in VARIANTS.items() for name in re.findall(r'class (\w+)', text)]


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    "A folder outside the package, with the method of twelve lines, a module beside it, and its versions."
    folder = tmp_path_factory.mktemp('mine')
    (folder/'beside.py').write_text('SMALL = 1e-6\n')
    (folder/'mine.py').write_text(TWELVE)
    more = '\nimport gc\nimport sys\nimport torch\nfrom mpfnet.folds import Fold\nfrom mpfnet.tools import processes\n'
    more += 'found = []\n'
    (folder/'versions.py').write_text(more + TWELVE + ''.join(VARIANTS.values()))
    return folder


def go(flow_root, out, method, **more):
    return run(**dict(dataset='megc2019_flow', data_root=str(flow_root), out_dir=str(out), method=method, device='cpu',
                      subjects='samm/sa00,samm/sa01,smic/sm01', progress=False) | more)


def config(folder): return json.loads((folder/'config.json').read_text())


def shas(folder):
    return {p.name: json.loads(p.read_text())['weights_sha256'] for p in sorted((folder/'folds').glob('*.json'))}


# --- check-method -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('check, name', WHO, ids=lambda v: v)
def test_each_version_fails_the_check_that_is_named_for_it(files, check, name):
    table = check_method(f'{files}/versions.py:{name}', fresh=False)
    assert check in failed_checks(table), table.to_string()
    assert set(failed_checks(table)) == {check, *ALSO.get(name, ())}, table.to_string()
    assert len(table.loc[check, 'says']) > 40


def test_the_twelve_lines_pass_also_in_a_new_process(files):
    table = check_method(f'{files}/mine.py:Mine')
    assert set(table['passed']) == {'yes'} and list(table.index) == list(checking.CHECKS), table.to_string()


@pytest.mark.parametrize('thing', [
    make_pipeline(StandardScaler(), PCA(50), LinearDiscriminantAnalysis()), RandomForestClassifier(5), 'network',
    'pca_lda', 'bi_woof'], ids=lambda t: t if isinstance(t, str) else type(t).__name__)
def test_what_is_sound_passes(thing, tmp_path):
    if thing == 'network': thing = f'{write(tmp_path, "nets.py", NETWORK)}:small'
    table = check_method(thing, fresh=False)
    assert not failed_checks(table) and 'not judged' not in set(table['passed']), table.to_string()


def test_the_command_says_what_failed(files):
    done = warm('-m', 'mpfnet', 'check-method', 'versions.py:Numpy', cwd=files,
                env=os.environ | dict(PYTHONPATH=str(ROOT)))
    assert done.returncode == 1 and 'Failed: determinism' in done.stdout, done.stderr
    assert 'Not judged: order' in done.stdout
    done = warm('-m', 'mpfnet', 'check-method', 'versions.py', cwd=files, env=os.environ | dict(PYTHONPATH=str(ROOT)))
    assert done.returncode == 1 and 'there is: versions.py:Mine, versions.py:Attribute' in done.stderr


# --- a run ------------------------------------------------------------------------------------------------------------

def test_a_run_in_processes_goes_on_and_keeps_weights(files, flow_root, tmp_path):
    "One process or two, one seed or several, interrupted or not: the same records."
    mine = f'{files}/mine.py:Mine'
    one = go(flow_root, tmp_path/'one', mine)
    assert one.name.startswith('megc2019_flow-3class-Mine-') and config(one)['own']['address'] == 'mine.py:Mine'
    two = go(flow_root, tmp_path/'two', mine, subjects='samm/sa00')
    assert go(flow_root, tmp_path/'two', mine, workers=2, keep_weights=True).name == two.name == one.name
    assert shas(one) == shas(two) and len(shas(one)) == 3
    assert (one/'predictions.csv').read_bytes() == (two/'predictions.csv').read_bytes()
    assert len(list((two/'weights').glob('*.safetensors'))) == 3
    seeds = go(flow_root, tmp_path/'one', mine, seed='0,1')
    assert json.loads((seeds/'metrics.json').read_text())['seeds']['uf1']['each'].__len__() == 2


def test_a_changed_file_does_not_find_its_old_folds(files, flow_root, tmp_path):
    "Nor does one whose neighbour changed; a comment, another folder, or the same text again find them."
    for name in ('mine.py', 'beside.py'): (tmp_path/name).write_text((files/name).read_text())
    def again(folder=tmp_path):
        return go(flow_root, tmp_path/'runs', f'{folder}/mine.py:Mine', subjects='samm/sa00').name
    first = again()
    (tmp_path/'mine.py').write_text('# a comment\n' + TWELVE)
    assert again() == first == again(files)
    (tmp_path/'beside.py').write_text('SMALL = 1e-3\n')
    second = again()
    (tmp_path/'mine.py').write_text(TWELVE.replace('.std(0)', '.std(0)*2'))
    assert len({first, second, again()}) == 3
    (tmp_path/'mine.py').write_text(TWELVE)
    assert again() == second


def test_what_decides_is_in_the_key_wherever_it_stands(tmp_path):
    "Two neighbours that change their texts, one that a function imports, what a name was set to, a bound method."
    def key(name='mine.py'): return code_deciding(as_method(f'{tmp_path}/{name}:Mine'))
    def known(**texts): return [write(tmp_path, f'{k}.py', v) for k, v in texts.items()] and key()
    for name, k in dict(late=1, one=1, two=2).items(): write(tmp_path, f'{name}.py', f'K = {k}\n')
    text = TWELVE.replace('from beside import SMALL', 'from one import K as SMALL\nfrom two import K as OTHER')
    text = text.replace('def flat', 'kind_of_mean = "plain"\n    def late(self):\n        import late\n    def flat')
    keys = [known(mine=text), known(one='K = 2\n', two='K = 1\n'), known(late='K = 2\n')]
    module = sys.modules[as_method(f'{tmp_path}/mine.py:Mine').home]
    module.Mine.kind_of_mean = 'robust'
    keys.append(key())
    module.SMALL = np.ones(3)
    assert len({*keys, key()}) == 5
    module.Mine.kind_of_mean, module.SMALL = 'plain', 2
    assert key() == keys[2] == known(late='K = 2  # the same\n')
    read = 'SMALL = float(open(__file__[:-2] + "t").read())'
    write(tmp_path, 'data.py', TWELVE.replace('from beside import SMALL', read))
    write(tmp_path, 'data.t', '1')
    first = key('data.py')
    write(tmp_path, 'data.t', '2')
    del sys.modules[as_method(f'{tmp_path}/data.py:Mine').home]
    assert key('data.py') != first


class Scaled:
    __slots__ = ('by',)
    def __init__(self, by): self.by = by
    def apply(self, x): return x*self.by


class Both2(Scaled):
    def __init__(self, by, more=0): self.by, self.more = by, more


@pytest.mark.parametrize('one, other', [
    (Scaled(2).apply, Scaled(3).apply), (Scaled(2), Scaled(3)), (Both2(2), Both2(3)), ({1: 2, '1': 3}, {1: 3, '1': 3}),
    (torch.float32, torch.float64), (re.compile('a'), re.compile('b')), (pd.DataFrame([1]), pd.DataFrame([2])),
    (partial(np.add, np.ones(2)), partial(np.add, np.zeros(2)))], ids=lambda v: type(v).__name__)
def test_what_a_method_is_made_with_is_in_the_key(one, other):
    def key(v): return code_deciding(own(make_pipeline(FunctionTransformer(kw_args=dict(v=v)), SVC())))
    assert key(one) == key(copy.deepcopy(one)) != key(other)


def test_what_cannot_be_written_down_is_a_sentence():
    loop = []
    loop.append(loop)
    for odd in (loop, dict(a=iter([1]), b=(k for k in 'ab'))):
        with pytest.raises(ValueError, match='SVC: what it is made with cannot be written down|cannot be cloned'):
            own(SVC(class_weight=odd))


def test_a_guest_leaves_the_process_as_it_was(flow_root, tmp_path):
    """Settings are put back, so that the next method computes as ever; what was set from outside is no fold of another
    process."""
    text = TWELVE.replace('from beside import SMALL', 'import os\nimport torch\nSMALL = 1.')
    text = text.replace('        x, y =', """        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(False)
        np.seterr(all='raise')
        os.chdir('/')
        os.environ['OF_A_GUEST'] = '1'
        x, y =""")
    write(tmp_path, 'guest.py', text)
    before = os.getcwd(), np.geterr()
    folder = go(flow_root, tmp_path/'runs', f'{tmp_path}/guest.py:Mine')
    assert (os.getcwd(), np.geterr()) == before and 'OF_A_GUEST' not in os.environ and len(shas(folder)) == 3
    assert torch.get_default_dtype() == torch.float32 and torch.is_grad_enabled()
    row = as_method(f'{tmp_path}/guest.py:Mine')
    sys.modules[row.home].SMALL = 2.
    kept = pickle.dumps(as_method(row.thing))
    sys.modules[row.home].SMALL = 1.                # as a process that reads the file would have it
    odd = pickle.loads(kept)
    fold = Fold(checking.toy_clips('frames'), np.zeros((90, 1, 1, 2, 2), np.float16), [checking.TESTED])
    assert not pickle.loads(pickle.dumps(row)).odd
    with pytest.raises(ValueError, match='guest.py:SMALL holds something else in the process that trains'):
        fit(odd, fold, Context(settings=None))


NETWORK = '''
from torch import nn
WIDTH = 4
def small(in_channels, n_classes, shape):
    return nn.Sequential(nn.Conv3d(in_channels, WIDTH, (1, 3, 3)), nn.BatchNorm3d(WIDTH), nn.ReLU(), nn.Dropout(.3),
                         nn.Flatten(), nn.LazyLinear(n_classes))
'''


def write(folder, name, text):
    (folder/name).write_text(text)
    return folder/name


def test_estimators_and_networks_run(flow_root, tmp_path):
    "A parameter of an estimator, and a setting of the training, are in the key; the seed counts."
    forest, net = RandomForestClassifier(3, max_depth=2), f'{write(tmp_path, "nets.py", NETWORK)}:small'
    few = dict(subjects='samm/sa00')
    runs = [go(flow_root, tmp_path, m, **few, **more) for m, more in [
        (forest, {}), (forest, dict(seed=1)), (RandomForestClassifier(4, max_depth=2), {}),
        (forest, dict(features='flow')), (net, dict(overrides='own.epochs=2')), (net, dict(overrides='own.epochs=3'))]]
    assert len(set(runs)) == 6 and len({*map(str, map(shas, runs))}) == 6
    assert config(runs[0])['own']['versions']['sklearn'] and config(runs[4])['settings']['own']['epochs'] == 2
    assert go(flow_root, tmp_path/'again', forest, **few).name == runs[0].name
    assert shas(go(flow_root, tmp_path/'again', forest, **few)) == shas(runs[0])
    assert json.loads((runs[0]/'env.json').read_text())['folds_trained'] == 1


def test_what_else_runs_methods_runs_these(flow_root, tmp_path):
    "Inner folds, and the audit, which watches a network epoch by epoch."
    from mpfnet.paper.protocol_audit import audit, read_curves
    from mpfnet.tools.validate import validate

    net = f'{write(tmp_path, "nets.py", NETWORK)}:small'
    same = dict(dataset='megc2019_flow', data_root=str(flow_root), out_dir=str(tmp_path), device='cpu')
    assert 0 <= validate('samm/sa00', n_splits=2, method=SVC(), **same)['uf1'] <= 1
    curves = read_curves(audit(method=net, overrides='own.epochs=2', subjects='samm/sa00', **same))
    assert len(curves.epochs) == 3 and 'small' in curves.title


def test_papermill_reads_a_file_of_the_callers_folder(files, flow_root, tmp_path):
    for name in ('mine.py', 'beside.py'): (tmp_path/name).write_text((files/name).read_text())
    done = warm('-m', 'papermill', ROOT/'nbs'/'05_loso.ipynb', tmp_path/'out.ipynb', '--no-progress-bar',
                '-p', 'dataset', 'megc2019_flow', '-p', 'data_root', flow_root, '-p', 'method', 'mine.py:Mine',
                '-p', 'subjects', 'samm/sa00', cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    folder, = (tmp_path/'runs').glob('megc2019_flow-3class-Mine-*')
    assert len(shas(folder)) == 1


def test_another_process_needs_no_file(files, tmp_path):
    "A row carries the text of its modules: a file that is gone, or was changed meanwhile, changes nothing."
    for name in ('mine.py', 'beside.py'): (tmp_path/name).write_text((files/name).read_text())
    row = as_method(f'{tmp_path}/mine.py:Mine')
    (tmp_path/'row').write_bytes(pickle.dumps(row))
    (tmp_path/'beside.py').write_text('SMALL = 5.\n')
    (tmp_path/'mine.py').unlink()
    code = ('import pickle, sys; row = pickle.loads(open(sys.argv[1], "rb").read()); from mpfnet.methods import *; '
            'import beside; print(row, row.kind, beside.SMALL, code_deciding(row))')
    done = warm('-c', code, tmp_path/'row', cwd=tmp_path, env=os.environ | dict(PYTHONPATH=str(ROOT)))
    assert done.stdout.split() == ['Mine', 'object', '1e-06', code_deciding(row)], done.stderr[-2000:]


def test_a_name_of_the_table_stays_the_tables():
    assert str(own(SVC(), name='pca_lda')) == 'own_pca_lda' and str(own(SVC(), name='a/../b-c')) == 'a____b_c'
    assert as_method('pca_lda') == 'pca_lda'


@pytest.mark.parametrize('wrong', [':', ':Name', 'a:b:c', 'my-module:Name', 'file.py: Name', 'file.py:Name()'])
def test_what_is_no_address_is_a_sentence(wrong):
    with pytest.raises(ValueError) as e: as_method(wrong)
    assert str(e.value) == f"method: expected 'package.module:Name' or 'file.py:Name', found {wrong!r}"


def test_an_address_without_a_name_lists_what_is_there(files):
    with pytest.raises(ValueError, match='Expected mine.py:Name; there is: mine.py:Mine'):
        as_method(f'{files}/mine.py:')
    with pytest.raises(ValueError, match="there is no module 'nowhere'"): as_method('nowhere.at:')


def test_settings_of_ones_own(tmp_path, capsys):
    "A network has those of its training; an object decides its own, and has those of what it reads."
    for text, owns in ((NETWORK, True), (TWELVE.replace('from beside import SMALL', 'SMALL = 1e-6'), False)):
        file = write(tmp_path, 'one.py', text)
        assert main(['settings', f'{file}:{"small" if owns else "Mine"}', '--preset', 'tiny']) == 0
        said = capsys.readouterr().out
        assert ('own.epochs' in said) == owns and 'preprocess.size' in said and 'pltn.' not in said
    assert main(['settings', ':']) != 0 and "expected 'package.module:Name'" in capsys.readouterr().err


def test_a_fitted_one_comes_back_from_its_state(tmp_path):
    "An object says by `restore` how."
    t = checking.toy_settings()
    clips, net = checking.toy_clips('frames'), own(f'{write(tmp_path, "nets.py", NETWORK)}:small')
    again = TWELVE.replace('from beside import SMALL', 'SMALL = 1e-6') + '''
    @classmethod
    def restore(cls, state):
        made = cls()
        made.scale, made.means = state['scale'], state['means']
        return made
'''
    mine = own(f'{write(tmp_path, "again.py", again)}:Mine')
    for row in (own(make_pipeline(PCA(5), SVC())), net, mine):
        x = checking.toy_features(row, (5, 2, 16, 16), 0)
        fold = Fold(clips, x, [checking.TESTED], n_classes=3)
        model = fit(row, fold, Context(settings=t))
        fold.seal(model.state())
        state = {k: torch.as_tensor(np.asarray(v)) for k, v in model.state().items()}
        about = dict(shape=(5, 2, 16, 16), n_classes=3, features='both', input='frames')
        back = row.restore(row, state, about, Context(settings=t))
        assert np.allclose(back.scores(fold.test_features()), model.scores(fold.test_features()), rtol=1e-6, atol=1e-6)


# --- scores of estimators ---------------------------------------------------------------------------------------------

@pytest.mark.parametrize('model', [LinearDiscriminantAnalysis(), SVC(), RidgeClassifier(), NearestCentroid()],
                         ids=lambda m: type(m).__name__)
@pytest.mark.parametrize('labels', [(0, 1, 2), (0, 2), (1, 2)], ids=str)
def test_a_class_without_training_clips_has_a_column(model, labels):
    "In the order of the classes, and never the one that is said."
    r = np.random.default_rng(0)
    y = np.repeat(labels, 10)
    x = r.normal(size=(len(y), 4)) + 5*y[:, None]
    scores = class_scores(model.fit(x, y), x, 3, 'mine')
    assert scores.shape == (len(y), 3) and np.isfinite(scores).all() and (scores.argmax(1) == y).mean() > .8


class Regresses(ClassifierMixin, BaseEstimator):
    def fit(self, x, y): return self
    def predict(self, x): return np.full(len(x), .5)


def test_an_estimator_that_names_no_class_is_told_so():
    with pytest.raises(ValueError, match=r'mine: predict: expected the number of a class for each clip, 0…2'):
        class_scores(Regresses(), np.zeros((4, 2)), 3, 'mine')


# --- bad input --------------------------------------------------------------------------------------------------------

class NoScores:
    def fit(self, fold): pass
    def state(self): return {}


class Both(NoScores):
    def scores(self, x): pass
    def predict(self, x): pass
    def get_params(self, deep=True): return {}


class WithArguments(NoScores):
    def __init__(self, k): self.k = k
    def scores(self, x): pass


class KeepsAnother(BaseEstimator):
    def __init__(self, a): self.a = a + 1
    def fit(self, x, y): pass
    def predict(self, x): pass


def returns_nothing(): return None
def returns_a_network(): return torch.nn.Linear(2, 2)
def fails(): raise RuntimeError('no luck')
def any_number(*args): return SVC()
def one_argument(a): return SVC()


@pytest.mark.parametrize('method, says', [
    (NoScores, 'NoScores: .*found fit, state, missing scores'),
    (Both, r'Both could be estimator and object: say which, by an attribute kind='),
    (WithArguments, r'WithArguments\(k\): expected a class that is made without arguments; hand over an instance'),
    (KeepsAnother(1), r'KeepsAnother: cannot be cloned'),
    (KeepsAnother, r'KeepsAnother\(\) raised TypeError'),
    (torch.nn.Linear(2, 2), 'Linear: found a network that is made already'),
    (returns_nothing, r'what returns_nothing\(\) returned: expected an estimator'),
    (returns_a_network, r'what returns_a_network\(\) returned: found a network that is made already'),
    (fails, r'fails\(\) raised RuntimeError: no luck'),
    (any_number, 'any_number can be called without arguments and with three'),
    (one_argument, r'one_argument\(a\): expected .*a function takes no arguments, or those three'),
    (3, '3|int: expected an estimator'),
    (SVC(decision_function_shape='ovo'), "SVC: decision_function_shape: expected 'ovr'"),
    (partial(SVC, 1, 2, 3, 4), 'could be|expected|raised|arguments'),
    ('no_such.py:Mine', 'no_such.py: no such file; expected a Python file with a method, as file.py:Name'),
    ('no.such.module:Mine', "there is no module 'no'; expected package.module:Name"),
    ('mpfnet.methods:Nothing', "mpfnet.methods: no 'Nothing' in it"),
    ('nothing', "method='nothing' is unknown; known: mpfnet_c.*or one of your own"),
], ids=lambda v: getattr(v, '__name__', None) or str(v)[:30])
def test_what_is_no_method_is_a_sentence(method, says, flow_root, tmp_path):
    with pytest.raises(ValueError, match=says): go(flow_root, tmp_path, method)
    assert not list(tmp_path.rglob('*.f16'))


@pytest.mark.parametrize('text, name, says', [
    ('a = 1\nb = a/0\n', 'Mine', 'mine.py raised ZeroDivisionError in line 2: division by zero'),
    ('def f(:\n', 'Mine', 'mine.py raised SyntaxError in line 1: invalid syntax'),
    ('import nothing_such\n', 'Mine', "mine.py raised ModuleNotFoundError in line 1: No module named 'nothing_such'"),
    ('raise SystemExit(3)\n', 'Mine', 'mine.py raised SystemExit in line 1: 3'),
    (TWELVE.replace('from beside import SMALL', 'SMALL = 1'), '', 'which method of it.*there is: mine.py:Mine'),
    (TWELVE.replace('from beside import SMALL', 'SMALL = 1'), 'Mnie', "no 'Mnie' in it; there is: mine.py:Mine"),
    ('from torch import nn\ndef net(c, k, shape): return 3\n', 'net', 'net: its factory returned int; expected'),
    ('from torch import nn\ndef net(c, k, shape): return nn.Flatten()\n', 'net', r'logits of shape \(2, 3\)'),
    ('reads = 1\nclass A:\n    reads = "pixels"\n    def fit(s, f): pass\n    def scores(s, x): pass\n'
     '    def state(s): pass\n', 'A', "A: reads: expected a recipe: preprocess, strain"),
    ('class A:\n    modules = "no_such_module"\n    def fit(s, f): pass\n    def scores(s, x): pass\n'
     '    def state(s): pass\n', 'A', "there is no module 'no_such_module'"),
], ids=lambda v: v.splitlines()[0][:24] if '\n' in v else v)
def test_a_file_that_is_wrong_is_a_sentence(text, name, says, flow_root, tmp_path):
    file = write(tmp_path, 'mine.py', text)
    with pytest.raises(ValueError, match=says): go(flow_root, tmp_path/'runs', f'{file}:{name}' if name else str(file))
    assert not list(tmp_path.rglob('*.f16'))


def test_the_wrong_numbers_lose_no_fold(flow_root, tmp_path, files):
    "A fold whose scores are none is not written, and those before it stay."
    text = (TWELVE.replace('from beside import SMALL', 'SMALL = 1e-6')
            .replace('def scores(self, x): return', 'def scores(self, x): return self.odd*')
            .replace('    def state', '    def state', 1)
            .replace('x, y =', 'self.odd = np.nan if "sa01" in str(fold.held_out) else 1.\n        x, y ='))
    mine = f'{write(tmp_path, "mine.py", text)}:Mine'
    with pytest.raises(ValueError, match='Mine: scores: expected finite numbers, found NaN or infinity for'):
        go(flow_root, tmp_path/'runs', mine)
    folder, = (tmp_path/'runs').glob('megc2019_flow-*')
    assert [*shas(folder)] == ['samm__sa00.json']


def test_what_a_notebook_defines_is_told_to_write_a_file():
    class Here(NoScores):
        def scores(self, x): pass
    Here.__module__ = '__main__'
    with pytest.raises(ValueError, match=r"a cell that begins with %%writefile my_method.py.*method='my_method.py:"):
        as_method(Here)
    with pytest.raises(ValueError, match='is made inside a function'):
        Here.__module__ = __name__
        as_method(Here)
    assert as_method(lambda: make_pipeline(PCA(2), SVC())).kind == 'estimator'      # its parts have files


def test_neighbours_of_the_same_name_are_told_apart(tmp_path):
    "Two folders, each with a file and a module beside it of the same names."
    for folder in ('a', 'bb'):
        (tmp_path/folder).mkdir()
        write(tmp_path/folder, 'neighbour.py', f'SMALL = {len(folder)}.')
        write(tmp_path/folder, 'mine.py', TWELVE.replace('beside', 'neighbour') + '    small = SMALL\n')
    rows = [as_method(f'{tmp_path}/{folder}/mine.py:Mine') for folder in ('a', 'bb', 'a')]
    assert [r.thing.small for r in rows] == [1, 2, 1]
    first, second, third = map(code_deciding, rows)
    assert first == third != second


# --- a page and a row -------------------------------------------------------------------------------------------------

def skeleton():
    "The page of CONTRIBUTING.md as (kind, text) of its cells, and the row."
    text = (ROOT/'CONTRIBUTING.md').read_text(encoding='utf-8').partition('### A page to begin with')[2]
    *cells, (_, row) = re.findall(r'^```(md|python)\n(.*?)\n```$', text.partition('\n## ')[0], re.M | re.S)
    return cells, row.strip()


PAGE = """
import sys
for text in open(sys.argv[1], encoding='utf-8').read().split('#cell'):
    exec(compile(text, 'page', 'exec'))
from mpfnet.tools.check_method import check_method
from mpfnet.methods import METHODS, code_deciding
assert METHODS['nearest_mean'].features
table = check_method('nearest_mean', fresh=False)
print(hits, set(table['passed']), code_deciding('nearest_mean') != code_deciding('pca_lda'))
"""


def test_the_page_and_the_row_of_the_guide_work_as_they_stand(tmp_path):
    "Exported into a copy of the package; its example, the checks of a row, and what is asked of every page."
    import nbformat
    from nbdev.export import nb_export
    from test_lint import found

    cells, row = skeleton()
    make = dict(md=nbformat.v4.new_markdown_cell, python=nbformat.v4.new_code_cell)
    page = nbformat.v4.new_notebook(cells=[make[kind](text) for kind, text in cells], metadata=dict(
        kernelspec=dict(name='python3', display_name='python3', language='python')))
    (tmp_path/'nbs'/'rivals').mkdir(parents=True)
    path = tmp_path/'nbs'/'rivals'/'90_nearest_mean.ipynb'
    nbformat.write(page, path)
    shutil.copytree(ROOT/'mpfnet', tmp_path/'mpfnet', ignore=shutil.ignore_patterns('__pycache__'))
    nb_export(path, tmp_path/'mpfnet')
    methods = tmp_path/'mpfnet'/'methods.py'
    text = methods.read_text(encoding='utf-8').replace(
        '\nMETHODS = dict(\n', f'\nfrom mpfnet.rivals.nearest_mean import NearestMean\nMETHODS = dict(\n    {row}\n')
    methods.write_text(text, encoding='utf-8')
    code = [text for kind, text in cells if kind == 'python']
    (tmp_path/'cells').write_text('#cell'.join(code), encoding='utf-8')
    done = subprocess.run([sys.executable, '-c', PAGE, tmp_path/'cells'], cwd=tmp_path, capture_output=True, text=True,
                          env=os.environ | dict(PYTHONPATH=str(tmp_path)))
    assert done.stdout.split(None, 1)[1:] == ["{'yes'} True\n"], done.stderr[-2000:] + done.stdout
    assert not found('nbs/rivals/90_nearest_mean.ipynb', path.read_text(encoding='utf-8'))
