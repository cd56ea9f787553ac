"""Before the bot starts: the files that `init` writes, the interpreter that trains, the checks of
`doctor`.

In come a user's folders and configuration; out go files beside theirs and findings, a line each.
It overwrites nothing of theirs, trains nothing and prints nothing.
"""
