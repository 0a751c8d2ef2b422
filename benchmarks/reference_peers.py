"""Frozen: what a user would otherwise run, as one would first write it from the papers: a loop over folds, pairs,
pixels, blocks or sheets. Benchmarks measure against it; it does not change when the library does."""
import math
import re
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from reference_i3d import I3D, Unit  # noqa: F401 (I3D is for who imports this)
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

# ---- STSTNet: three shallow streams, a network a fold


class Streams(nn.Module):
    """Liong et al. 2019: convolutions of 3, 5 and 8 filters, each with ReLU, batch norm, max-pool; side by side into
    one linear layer."""
    def __init__(self, in_channels=3, n_classes=3, dropout=.5):
        super().__init__()

        def stream(filters):
            return nn.Sequential(nn.Conv2d(in_channels, filters, 3, padding=2), nn.ReLU(), nn.BatchNorm2d(filters),
                                 nn.MaxPool2d(3, 3, padding=1))
        self.streams = nn.ModuleList(stream(n) for n in (3, 5, 8))
        self.dropout, self.pool, self.head = nn.Dropout(dropout), nn.AvgPool2d(2), nn.Linear(16*5*5, n_classes)

    def forward(self, x):
        return self.head(self.pool(self.dropout(torch.cat([s(x) for s in self.streams], 1))).flatten(1))


# (n, 3, 28, 28), (n,); which clips are tested; an untrained network
def ststnet_fold(x, y, test, net, epochs=200, batch=256, lr=2e-4):
    "Train on the other clips; scores of the tested ones."
    # else it takes a number that dropout would draw
    loader = DataLoader(TensorDataset(x[~test], y[~test]), batch_size=batch, generator=torch.Generator())
    optimiser = torch.optim.Adam(net.parameters(), lr=lr)
    net.train()
    for _ in range(epochs):
        for images, labels in loader:
            optimiser.zero_grad()
            loss = F.cross_entropy(net(images), labels)
            loss.backward()
            optimiser.step()
    net.eval()
    with torch.no_grad(): return net(x[test]).softmax(1)

# ---- optical flow, a pair at a time


def tvl1(a, b): # two grey images (H, W) uint8
    "TV-L1 (H, W, 2) in px: OpenCV's where its extra modules are installed, else scikit-image's."
    if hasattr(cv2, 'optflow'): return cv2.optflow.DualTVL1OpticalFlow_create().calc(a, b, None)
    from skimage.registration import optical_flow_tvl1
    v, u = optical_flow_tvl1(a/255, b/255)
    return np.stack([u, v], -1)


def flows_of_clip(folder, numbers, size=128): # of its frames; which; side of the crop, px
    "Flow between neighbours of these frames (n − 1, H, W, 2)."
    frames = [cv2.resize(cv2.imread(str(next(Path(folder).glob(f'*[!0-9]{n}.*')))), (size, size)) for n in numbers]
    grey = [cv2.cvtColor(f, cv2.COLOR_BGR2GRAY) for f in frames]
    return np.stack([tvl1(a, b) for a, b in zip(grey, grey[1:])])

# ---- descriptors, pixel by pixel and block by block


def uniform(bits): # 0s and 1s around a circle
    """The code of a pattern: 0 for none, by number of ones and where their run begins, then all, then whatever is not
    uniform."""
    P, changes = len(bits), sum(bits[k] != bits[k - 1] for k in range(len(bits)))
    if changes > 2: return P*(P - 1) + 2
    if sum(bits) == P: return P*(P - 1) + 1
    if sum(bits) == 0: return 0
    begins = next(k for k in range(P) if bits[k] and not bits[k - 1])
    return 1 + (sum(bits) - 1)*P + -begins % P


def lbp_top(volume, P=4, radii=(1, 1, 4), grid=(5, 5)): # (T, H, W) whole numbers; R in x, y, t
    "Histograms (blocks, 3·bins) of the three planes; the four neighbours lie on pixels."
    rx, ry, rt = radii
    T, H, W = volume.shape
    bins, offsets = (
        P * (P - 1) + 3,
        dict(XY=[(0, 0, rx), (0, -ry, 0), (0, 0, -rx), (0, ry, 0)],
             XT=[(0, 0, rx), (-rt, 0, 0), (0, 0, -rx), (rt, 0, 0)],
             YT=[(0, ry, 0), (-rt, 0, 0), (0, -ry, 0), (rt, 0, 0)]),
    )
    out = np.zeros((grid[0]*grid[1], 3, bins))
    for t in range(rt, T - rt):
        for y in range(ry, H - ry):
            for x in range(rx, W - rx):
                block = (y - ry)*grid[0]//(H - 2*ry)*grid[1] + (x - rx)*grid[1]//(W - 2*rx)
                for k, around in enumerate(offsets.values()):
                    bits = [int(volume[t + dt, y + dy, x + dx] >= volume[t, y, x]) for dt, dy, dx in around]
                    out[block, k, uniform(bits)] += 1
    return (out/out.sum(2, keepdims=True)).reshape(len(out), -1)


def bi_woof(flow, grid=(5, 5), bins=8): # (2, H, W) u, v
    "Liong et al. 2018: histograms of direction weighed by length, times the blocks' mean strain; of length 1."
    u, v = flow
    (uy, ux), (vy, vx) = np.gradient(u), np.gradient(v)
    H, W = u.shape
    strain, out, count, total = (np.zeros((H, W)), np.zeros((grid[0] * grid[1], bins)), np.zeros(grid[0] * grid[1]),
                                 np.zeros(grid[0] * grid[1]))
    for y in range(H):
        for x in range(W):
            strain[y, x] = math.sqrt(ux[y, x]**2 + vy[y, x]**2 + (uy[y, x] + vx[y, x])**2/2)
            block = y*grid[0]//H*grid[1] + x*grid[1]//W
            direction = int(math.floor((math.atan2(v[y, x], u[y, x])/(2*math.pi) + .5)*bins)) % bins
            out[block, direction] += math.hypot(u[y, x], v[y, x])
            count[block] += 1
            total[block] += strain[y, x]
    for b in range(len(out)):
        if out[b].sum(): out[b] = out[b]/out[b].sum()*total[b]/count[b]
    return out/np.linalg.norm(out) if out.any() else out

# ---- MPFNet: the frozen I3D, three passes a triplet, every run with priors of its own


def maps(net, x): # I3D
    "Its last feature map."
    for layer in (net.stem, net.block1): x = F.max_pool3d(layer(x), (1, 3, 3), (1, 2, 2), (0, 1, 1))
    return net.block2(x)


class Alone(nn.Module):
    "One encoder."
    weights = (1.,)
    def __init__(self, net):
        super().__init__()
        self.net = net
    def forward(self, x): return [self.net(x)]


class Parallel(nn.Module):
    "MPFNet-P: both encoders by themselves."
    def __init__(self, gfe, afe, gamma=.7):
        super().__init__()
        self.gfe, self.afe, self.weights = gfe, afe, (1., gamma)
    def forward(self, x): return [self.gfe(x), self.afe(x)]


class Cascade(nn.Module):
    "MPFNet-C: the AFE sees the clip and, beside it, what the GFE made of it."
    weights = (1.,)
    def __init__(self, gfe, afe, k=8):
        super().__init__()
        old = afe.stem.conv
        wide = Unit(old.in_channels + k, old.out_channels, 3, old.stride[1])
        with torch.no_grad():
            wide.conv.weight.zero_()
            wide.conv.weight[:, :old.in_channels] = old.weight
        wide.norm, afe.stem = afe.stem.norm, wide
        self.gfe, self.afe, self.bridge = gfe, afe, nn.Conv3d(gfe.block2.channels, k, 1)
    def forward(self, x):
        f = F.interpolate(self.bridge(maps(self.gfe, x)), x.shape[2:], mode='trilinear')
        return [self.afe(torch.cat([x, f], 1)) + self.gfe(x)]


def descending(net, lr): return torch.optim.SGD(net.parameters(), lr=lr, momentum=.9, weight_decay=5e-4)


def hinge(net, x, anchor, positive, negative, margin=.2): # positions of the three
    "Mean triplet loss, each of the three through the network."
    a, p, n = (F.normalize(net(x[i]), dim=1) for i in (anchor, positive, negative))
    return F.relu((a - p).square().sum(1) - (a - n).square().sum(1) + margin).mean()


def train_triplets(net, x, y, batches, lr): # …; anchors of each update
    "Each anchor with a positive and a negative by lot."
    optimiser = descending(net, lr)
    for anchors in batches:
        positive, negative = (torch.stack([one(torch.nonzero(y == y[a] if same else y != y[a])) for a in anchors])
                              for same in (True, False))
        optimiser.zero_grad()
        hinge(net, x, anchors, positive, negative).backward()
        optimiser.step()


def one(places): return places[torch.randint(len(places), (1,))].squeeze()


def train_classifier(net, head, x, y, batches, lr):
    "The balanced set of raw and magnified clips."
    both = nn.Sequential(net, nn.ReLU(), head)
    optimiser = descending(both, lr)
    for i in batches:
        optimiser.zero_grad()
        F.cross_entropy(both(x[i]), y[i]).backward()
        optimiser.step()


def query_loss(matcher, x, y, support, query, tau=10., n_classes=3):
    "Cross-entropy of an episode's queries by cosine similarity to the class centroids of its support."
    scores = 0
    for w, s, q in zip(matcher.weights, matcher(x[support]), matcher(x[query])):
        centroids = torch.stack([s[y[support] == c].mean(0) for c in range(n_classes)])
        scores = scores + w*F.cosine_similarity(q[:, None], centroids[None], dim=2)
    return F.cross_entropy(tau*scores, y[query])


def train_episodes(matcher, x, y, updates, lr): # …; the episodes of each update
    "Support and queries of each episode through the network."
    optimiser = descending(matcher, lr)
    for episodes in updates:
        optimiser.zero_grad()
        torch.stack([query_loss(matcher, x, y, s, q) for s, q in episodes]).mean().backward()
        optimiser.step()

# ---- reading six data sets: pandas for the sheet, glob for the frames

NEGATIVE = ('negative', 'disgust', 'anger', 'sadness', 'sad', 'fear', 'contempt', 'repression')
CLASSES = dict.fromkeys(NEGATIVE, 0) | dict.fromkeys(('positive', 'happiness', 'happy'), 1) | dict(surprise=2)


def sheet(root, name, **how): return pd.read_excel(next(Path(root).rglob(f'{name}*.xlsx')), dtype=str, **how)


def smic(root):
    for r in sheet(root, 'SMIC-HS-E_annotation', sheet_name='HS').itertuples():
        subject = f's{int(r.Subject):02}'
        yield (
            subject, subject + r.Filename[r.Filename.index('_') :], r.OnsetF, None, r.OffsetF, r.Emotion,
            f'SMIC_all_cropped/HS/s{r.Subject}/micro/{r.Emotion}/{r.Filename}',
        )


def casme2(root):
    for r in sheet(root, 'CASME2-coding').to_dict('records'):
        yield (
            f'sub{r["Subject"]}', r['Filename'], r['OnsetFrame'], r['ApexFrame'], r['OffsetFrame'],
            r['Estimated Emotion'], f'CASME2_RAW_selected/sub{r["Subject"]}/{r["Filename"]}',
        )


def samm(root):
    for r in sheet(root, 'SAMM_Micro_FACS_Codes', header=13).to_dict('records'):
        yield (
            r['Subject'], r['Filename'], r['Onset Frame'], r['Apex Frame'], r['Offset Frame'], r['Estimated Emotion'],
            f'SAMM/{r["Subject"]}/{r["Filename"]}',
        )


def mmew(root):
    for r in sheet(root, 'MMEW_Micro_Exp').to_dict('records'):
        yield (
            f'S{int(r["Subject"]):02}', r['Filename'], r['OnsetFrame'], r['ApexFrame'], r['OffsetFrame'],
            r['Estimated Emotion'], f'MMEW_Final/Micro_Expression/{r["Estimated Emotion"]}/{r["Filename"]}',
        )


def casme_sq(root):
    people, videos = (sheet(root, 'CAS(ME)^2code_final', sheet_name=f'naming rule{k}', header=None) for k in (1, 2))
    person, video = dict(zip(people[2], people[1])), dict(zip(videos[1], videos[0]))
    for r in sheet(root, 'CAS(ME)^2code_final', sheet_name='CASFEcode_final', header=None).itertuples(index=False):
        if r[7] != 'micro-expression': continue
        subject, code = person[r[0]], video[r[1].rpartition('_')[0]]
        folder = next(Path(root).glob(f'rawpic/rawpic/{subject}/{subject[1:]}_{code}*'), None)
        yield subject, r[1], r[2], r[3], r[4], r[6], folder and folder.relative_to(root)


def casme3(root):
    for r in sheet(root, 'cas(me)3_part_A_ME').itertuples():
        yield (
            r.Subject, f'{r.Filename}_{r.Onset}', r.Onset, r.Apex, r.Offset, r.emotion,
            f'part_A/{r.Subject}/{r.Filename}/color',
        )


def read_clips(dataset, root): # of `READ`; its folder
    "One row a clip of three classes, with its frames from onset to offset."
    rows = []
    for subject, clip, onset, apex, offset, emotion, folder in READ[dataset](root):
        label = CLASSES.get(str(emotion).lower())
        if label is None or folder is None: continue
        try: onset, offset = int(onset), int(offset)
        except ValueError: continue
        numbers = {int(re.findall(r'\d+', f.stem)[-1]): str(f) for f in (Path(root)/folder).glob('*.*')}
        frames = {n: numbers[n] for n in sorted(numbers) if onset <= n <= offset}
        rows.append(dict(subject=subject, clip=clip, label=label, onset=onset, apex=apex, offset=offset, frames=frames))
    return pd.DataFrame(rows)


READ = dict(smic=smic, casme2=casme2, samm=samm, mmew=mmew, casme_sq=casme_sq, casme3=casme3)
