"""Every interval of the dispatcher, with its unit and its reason.

tests/delivery/test_timing.py asserts how they depend on each other. The timeouts of one request
are in `http/`.
"""

from typing import Final

# Shares of a lease's length.
#
# A lease is renewed when RENEW_SHARE of it has passed, or one interval later: so at least
# 1 − 2 × RENEW_SHARE of it is left at any time, and only an outage longer than OUTAGE_SHARE can end
# a lease. Processes that poll the store every POLL_SHARE notice such an outage by the time between
# two answers, even if they were suspended meanwhile and got no error.
RENEW_SHARE: Final = 0.1  # between two renewals
ABORT_SHARE: Final = 0.05  # between two checks for requests whose lease is about to end
MARGIN_SHARE: Final = 0.1  # a request is aborted this long before its lease ends
POLL_SHARE: Final = 0.55  # longest sleep between two claims
JUMP_SHARE: Final = 0.65  # a smaller jump of the store's clock leaves time to renew
OUTAGE_SHARE: Final = 0.8  # a longer time without an answer counts as an outage

# Claims, in seconds.
SAFETY_POLL: Final = 10.0  # longest sleep between two claims: what a lost notification costs
AHEAD: Final = 0.01  # a message is claimed this long before it is due, as a claim takes some time
GATHER_SLOTS: Final = 0.002  # a freed slot waits this long for others, to fill them by one claim
MIN_STANDBY: Final = 0.02  # delay of a process that lost a race; doubled each time
MAX_STANDBY: Final = 0.1  # how late the first message is after the leading process died
QUICK_REQUEST: Final = 0.5  # a request that is open for longer is slow
MAX_QUEUED: Final = 1.0  # longest wait for a permit: it cannot be cancelled, or paused, meanwhile
MAX_AWAITED: Final = 0.02  # longest wait of an ended request for the messages of a claim
RECOUNT_INTERVAL: Final = 15.0  # between two times at which queued messages are given back

# Pauses after errors, in seconds.
MIN_BACKOFF: Final = 0.1  # after the first failed call of the store
MAX_BACKOFF: Final = 1.0  # after several failed calls of the store
ERROR_PAUSE: Final = 1.0  # after an error of this program in a claim
SHORTAGE_PAUSE: Final = 1.0  # after this machine ran out of sockets

# Upkeep, in seconds.
RECOVERY_INTERVAL: Final = 1.0  # between two checks for dead processes; each costs microseconds
TRIM_INTERVAL: Final = 0.1  # shortest time between two checks of the store's memory
PURGE_INTERVAL: Final = 180.0  # between two deletions of records past their retention
SWEEP_INTERVAL: Final = 180.0  # between two searches for messages that are parked without a reason
