"""Sessions whose rounds are exchanged offline: an operator exports a bundle, and imports the other party's.

What an export writes follows from what the node keeps, so it can be written again at any time; an import does what calls
would do, each of which may be repeated. Neither needs a record of how far it came.
"""

from comity.node.offline.commands import Exported, Imported, OfflineCommands, offline_commands

__all__ = ["Exported", "Imported", "OfflineCommands", "offline_commands"]
