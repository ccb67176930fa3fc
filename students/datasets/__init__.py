"""Data sets of frames and an expert's actions: files on disk, recording, and cloning a student from them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tutelage.envs.contract.names import lazy_names

if TYPE_CHECKING:
    from tutelage.students.datasets.dataset import Dataset as Dataset
    from tutelage.students.datasets.dataset import DatasetWriter as DatasetWriter
    from tutelage.students.datasets.dataset_chunks import repair as repair
    from tutelage.students.datasets.dataset_cloning import CloningConfig as CloningConfig
    from tutelage.students.datasets.dataset_cloning import clone_from as clone_from
    from tutelage.students.datasets.dataset_recording import RecordingConfig as RecordingConfig
    from tutelage.students.datasets.dataset_recording import record as record

__getattr__, __all__ = lazy_names(__name__, __file__)
