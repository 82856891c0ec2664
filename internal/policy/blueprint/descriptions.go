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

const adaptiveDescription = `Lets in as many flows as a service can work on at once, a number it finds by itself.
The rest wait in order of priority until their deadline. It needs no setpoint, no query and no knowledge of
the service: it compares how long flows take with how many are in progress, once per tick.

Begin with this one. Use one of the others when what is overloaded is not the service itself, such as a
database behind it, or when you want to choose the latency yourself.

Exposes MAX_CONCURRENCY, IS_OVERLOAD and ACCEPT_PERCENTAGE to components. Dynamic configuration: dry_run.`

const averageLatencyDescription = `Cuts the load of a service while its flows take longer than usual. The cut is
in proportion to how much longer, and load is raised again step by step. Usual is the average latency of the
last half hour, times a tolerance; while load is cut it stays what it was before, so that an overload does
not become usual.

Use it to keep the latency of a service near what its users know. Flows that are turned away are those of
the lowest priority.

Exposes SIGNAL (latency in milliseconds), SETPOINT, IS_OVERLOAD, DESIRED_LOAD_MULTIPLIER (invalid while
everything passes) and OBSERVED_LOAD_MULTIPLIER to components. Dynamic configuration: dry_run.`

const promQLDescription = `Cuts the load of a service while a number is on the wrong side of a setpoint. Load is
cut and raised again step by step; the number is the result of a query that you choose.

Use it when you know the number that shows an overload: the length of a queue, the lag of a consumer, the
use of a pool. The number comes from metrics that Sluice scrapes or receives, or from your own Prometheus.

Exposes SIGNAL, SETPOINT, IS_OVERLOAD, DESIRED_LOAD_MULTIPLIER and OBSERVED_LOAD_MULTIPLIER to components.
Dynamic configuration: dry_run.`

const waitsForInfraMeters = `

It reads its signal with an infra meter. This release does not run infra meters: the policy is accepted, its
status says that it waits for them, and everything passes until the metrics come in some other way.`

const cpuDescription = `Cuts the load of a service while its pods use too much CPU. The signal is the average over
the pods, in percent of a core.

Use it for services that are busy rather than waiting, where CPU runs out first.` + waitsForInfraMeters

const elasticsearchDescription = `Cuts the load on Elasticsearch while searches wait in its queues. That is before the
cluster begins to reject them.

Use it in front of the service that searches.` + waitsForInfraMeters

const postgreSQLDescription = `Cuts the load on PostgreSQL while too many of its connections are in use. That is before
clients fail to connect.

Use it in front of the service that queries the database.` + waitsForInfraMeters

const javaGCDescription = `Cuts the load of a Java service while its garbage collections take too long. The signal is
the length of the last one, in milliseconds, from the JMX exporter of one host.` + waitsForInfraMeters

const javaGCKubernetesDescription = `Cuts the load of Java pods while their garbage collections take too long. The signal
is the length of the last ones, in milliseconds, from the JMX exporters of the pods whose names match an
expression.` + waitsForInfraMeters

const loadRampingDescription = `Lets a growing percentage of flows through for as long as all is well. Latency, a query
or the use of CPU decide whether it goes forward, backward or starts again. The same users stay in when
their sessions have a label.

Use it to roll a feature out. The code of the feature asks in ramp mode and does not run unless it is let
in, also when Sluice is away.

Exposes ACCEPT_PERCENTAGE, AT_START and AT_END to components. Dynamic configuration: start, reset and
pass_through_label_values.`

const podAutoScalingDescription = `Adds replicas in Kubernetes while they are needed, and removes them slowly. A query or
the use of CPU or memory by the pods decides.

This release does not scale objects of Kubernetes: the policy is accepted, its status says that it waits for
Kubernetes, and the circuit computes what it would do. Dynamic configuration: dry_run.`
