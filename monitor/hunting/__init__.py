"""From one account to the campaign it belongs to, over the archive of daily rows: a tip, followed in seconds."""

from .hunt import Found, Hunt, HuntOptions, hunt
from .load import People, load

__all__ = ["Found", "Hunt", "HuntOptions", "People", "hunt", "load"]
