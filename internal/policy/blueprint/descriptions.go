// SPDX-License-Identifier: Apache-2.0

package blueprint

const rateLimitingDescription = `Admits a number of flows, or of tokens, per time, and denies the rest at
once with the time after which to try again. With limit_by_label_key every user, tenant or API key has a
limit of its own.

Use it to keep single users of an API within their share, to enforce the limits of a plan, or to protect
something that must not see more than so many requests per second. Use quota scheduling instead when callers
can wait.`

const quotaSchedulingDescription = `Admits a number of flows, or of tokens, per time, and lets the rest wait
in order of priority until their deadline.

Use it in front of somebody else's API that has a quota, such as the tokens and requests per minute of a
model provider: the quota is used to the full and never exceeded, and what matters most goes first.`

const concurrencyLimitingDescription = `Admits flows while fewer than a given number are in progress, and
denies the rest at once. With limit_by_label_key the limit holds for every user, tenant or API key by itself.

Use it to keep single users from occupying a service that is slow rather than busy, such as exports, uploads
or long-running jobs. Use concurrency scheduling instead when callers can wait.`

const concurrencySchedulingDescription = `Admits flows while fewer than a given number are in progress, and
lets the rest wait in order of priority until their deadline.

Use it in front of something that does a fixed number of things at once, such as a model on a GPU or a pool
of database connections: it always has work, never too much, and paying users go ahead of free ones without
starving them.`
