"""Adapter `tars`: webdataset tars, as LAION-Audio-630K and LS-CLAP publish them.

    corpora/freesound/
        train/0.tar  train/1.tar …      every folder of tars has its split in `splits`
        test/0.tar …

Members of a sample have one name up to the first dot: `17.flac` (or another format) and

    17.json     {"text": ["A dog barks.", …], "tag": ["dog", …], "original_data": {…}}

`text` may be one string, `tag` may be absent; `licence`, `source` and the upload (Freesound's or
YouTube's id) are taken from the JSON or its `original_data`, whose content differs from corpus to
corpus, where they are plainly there.

Nothing is unpacked: CLIPS points to the recording's bytes within the tar. A tar that breaks off
gives what stands before the break.

LAION's tars of Clotho call its validation split "test" and its evaluation split "valid"; for them
only `splits: {train: train, test: val, valid: test}` is accepted.
"""

import json
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from flap.errors import UserError, first_line
from flap.sources.config import TarsDataset
from flap.sources.corpus import Intake, Item, Place, Refused
from flap.sources.files import RECORDING_SUFFIXES, CorpusFiles
from flap.sources.tar_folders import check_clotho, tars_by_folder
from flap.sources.tar_samples import describe
