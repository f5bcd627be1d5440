"""Spaces of Onedata, for jobs: a FUSE server and a file-transfer plugin over Onedata's own client.

    serve ─▶ operations ─▶ files ─┐
                                  ├─▶ space ─▶ onedatafilerestclient ─▶ Onezone, Oneproviders
    plugin ───────────────────────┘     └────▶ zone: who is asked, what a token permits

`zone` serves the access point, too, where a token is checked before it is stored. Only an image
built with `onedata` has what the other modules import: mfusepy and onedatafilerestclient.
"""
