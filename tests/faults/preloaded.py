"""What a search imports, for processes that are forked from one that has it."""

import sklearn.datasets  # noqa: F401
import torch

import automate.commands.search
import automate.front_text
import automate.plan_text
import automate.progress  # noqa: F401
import studies.local
import studies.record
import studies.report
import studies.search  # noqa: F401
import trainers.data
import trainers.loop
import trainers.speed  # noqa: F401

torch.set_num_threads(1)
