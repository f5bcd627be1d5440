"""Data in a job's sandbox: mounted before the job, gone after it, whatever happens.

    condor_starter ─▶ wrapper ─┬─ exec of the job, unchanged: it asks for no mount
                               └─ world: a user, mount and PID namespace of the job's own
                                    ├─ a server for each mount (rclone, sshfs, …), without rights
                                    └─ a PID namespace in it: the job, and all that it starts

The starter removes a sandbox with `rm -rf`: a mount that it could see would lose the data behind
it. So nobody but the job sees one, and what owns it ends when its parent does, killed or not.

`shape` is what a type of mount is; each stands in a module of `types`.
"""
