"""What the dashboards show, one module a dashboard, each in the order in which a person asks."""

from boards.abuse import ABUSE
from boards.models import MODELS
from boards.pipeline import PIPELINE
from boards.quality import QUALITY

BOARDS = (ABUSE, QUALITY, PIPELINE, MODELS)
