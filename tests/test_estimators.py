"""Estimators of scikit-learn as arrays: what cannot be written is refused by its name, what is written is the same
every time, and nothing in a file can have code imported or run."""
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from mpfnet.core.artefacts import sha256_of
from mpfnet.core.estimators import STRUCTURE, estimator_state, restored_estimator

y = np.arange(60) % 3
x = np.random.default_rng(0).normal(size=(60, 5)) + y[:, None]


class Nearest(BaseEstimator, ClassifierMixin):
    "Somebody's own: nearest mean."
    def __init__(self, power=2): self.power = power
    def fit(self, x, y):
        self.classes_ = np.unique(y)
        self.means_ = np.asfortranarray([x[y == c].mean(0) for c in self.classes_])
        return self
    def predict(self, x):
        return self.classes_[(abs(x[:, None] - self.means_)**self.power).sum(2).argmin(1)]


class Opener(Nearest):
    def fit(self, x, y):
        self.file_ = open(__file__)
        self.file_.close()
        return super().fit(x, y)


@pytest.mark.parametrize('est, name', [
    (RandomForestClassifier(2), 'estimators_.0.tree_ is a Tree'), (DecisionTreeClassifier(), 'tree_ is a Tree'),
    (KNeighborsClassifier(algorithm='kd_tree'), '_tree is a KDTree'), (Opener(), 'file_ is a TextIOWrapper'),
    (make_pipeline(StandardScaler(), DecisionTreeClassifier()), 'steps.1.1.tree_'),
    (HistGradientBoostingClassifier(), 'is a '),
])
def test_what_cannot_be_written_is_named(est, name):
    with pytest.raises(ValueError, match=f'{name}.*cannot be written') as said: estimator_state(est.fit(x, y))
    assert "algorithm='brute'" in str(said.value)


@pytest.mark.parametrize('est', [
    Nearest(1), GridSearchCV(SVC(), dict(C=[.1, 1]), cv=2), make_pipeline(FunctionTransformer(np.abs), Nearest()),
    make_pipeline(ColumnTransformer([('a', StandardScaler(), slice(0, 2)), ('b', 'passthrough', [3, 4])]),
                  LogisticRegression()), SVC(probability=True, random_state=0)])
def test_the_same_every_time_and_back(est):
    from sklearn.base import clone
    states = [estimator_state(clone(est).fit(x, y)) for _ in range(2)]
    assert sha256_of(states[0]) == sha256_of(states[1]), 'how long it took is not kept'
    again = restored_estimator(est, states[0])
    assert (again.predict(x) == clone(est).fit(x, y).predict(x)).all()
    assert sha256_of(estimator_state(again)) == sha256_of(states[0]), 'nothing is lost on the way'


FITTED = estimator_state(Nearest().fit(x, y))


@settings(max_examples=60)
@given(at=st.integers(0, len(FITTED[STRUCTURE]) - 1), byte=st.integers(0, 255))
def test_a_damaged_structure_is_a_sentence(at, byte):
    changed = FITTED[STRUCTURE].copy()
    changed[at] = byte
    try: found = restored_estimator(Nearest(), FITTED | {STRUCTURE: changed})
    except ValueError as e: assert 'state of Nearest' in str(e)
    else: assert type(found) is Nearest


HARMFUL = ['os:system', 'subprocess:Popen', 'builtins:eval', 'json:loads', 'sklearn:show_versions',
           'sklearn.neighbors._kd_tree:KDTree']


@pytest.mark.parametrize('name', HARMFUL)
def test_no_code_comes_from_a_file(name):
    tree = json.loads(bytes(FITTED[STRUCTURE]))
    tree['has']['more'] = dict(made=name, has={})
    harmful = np.frombuffer(json.dumps(tree).encode(), np.uint8)
    with pytest.raises(ValueError, match='expected a class of scikit-learn'):
        restored_estimator(Nearest(), FITTED | {STRUCTURE: harmful})
