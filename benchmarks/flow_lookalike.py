"""A look-alike of the public flow release: its folder, list and counts around made-up flow."""
from pathlib import Path

import cv2
import numpy as np

from mpfnet.data.labels import MEGC2019
from mpfnet.data.readers import FLOW_IMAGES, FLOW_LIST


def write_flow_release(root, seed=0):
    """The release's folder with made-up flow: 442 clips, the published counts, a weak class pattern. Returns the data
    root."""
    r, folder = np.random.default_rng(seed), Path(root) / 'megc2019_flow'
    (folder / FLOW_IMAGES).mkdir(parents=True)
    lines = ['dataset,sub,filename_o,label,apex,imagename,sub_filename']
    for dataset, (counts, n) in MEGC2019.items():
        for k, label in enumerate(np.repeat([0, 1, 2], counts)):
            image = r.normal(128, 40, (28, 28, 3))
            image[8 * label:8 * label + 8, :, :2] += 3
            subject, clip = f'{dataset[:2]}{k % n:02}', f'{k:03}'
            cv2.imwrite(str(folder / FLOW_IMAGES / f'{subject}_{clip} .png'), image.clip(0, 255).astype(np.uint8))
            lines.append(f'{dataset},{subject},{clip},{label},,x.jpg,')
    (folder / FLOW_LIST).write_text('\n'.join(lines) + '\n', encoding='utf-8')
    return Path(root)
