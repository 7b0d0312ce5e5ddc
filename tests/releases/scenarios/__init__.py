# SPDX-License-Identifier: Apache-2.0
"""What two ranks do beside stepping: each module is one job's ``drive(job, rank, config)``, whose
answer is that rank's report. See `tests.releases.two_ranks.Job`."""
