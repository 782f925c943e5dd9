"""From one account to the campaign it belongs to, over the archive of daily rows: a tip, followed in seconds. And which
templates unrelated tenants share."""

from .families import Family, families
from .hunt import Found, Hunt, HuntOptions, hunt
from .load import People, load

__all__ = ["Family", "Found", "Hunt", "HuntOptions", "People", "families", "hunt", "load"]
