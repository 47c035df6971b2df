"""The one machine that a server may be told to reach: this site's own registry, its mirror.

Without the setting ``mirror`` nothing here runs, and nothing connects. With it, a small process,
the courier, is started before the front-end confines itself. It connects to that one address, again
and again if asked, and to no other; it is asked without an address, and reads and writes nothing
else. The front-end gets the connected socket and speaks HTTP over it.
"""
