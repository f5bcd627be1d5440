"""A soak: random faults against a real pool under a stream of jobs, and a judge who knows all.

schedule  seed → which jobs and which faults, at which times     pure
faults    what each fault does to a container, and undoes        the engine, roost
stream    submits the jobs, brings the evidence                  the queue
events    what HTCondor wrote into the jobs' logs                pure
oracle    jobs, evidence, faults → verdict                       pure
report    verdict → table, JSON                                  pure
run       one soak from the pool's making to its end
"""
